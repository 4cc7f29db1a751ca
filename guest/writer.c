// The test guest: the only process of its initramfs. Writes the stream of pattern.h to /dev/vda, vdb, …, O_DIRECT,
// one request at a time, and says on the serial line what the disks have acknowledged.
//
// Lines on the serial line:
//   READY start=N up=S       disks are open; goes on after N, the highest number found on them (0: empty)
//   A N                      numbers up to N are written, and flushed on all disks
//   L n=N rate=R p50=U p99=U max=U fmax=U   writes since the last such line: per second, µs; fmax: longest flush
//   WERR n=N errno=E         a write failed (FERR: a flush); ends, or tries again with w.keepgoing=1
//   DONE n=N                 w.count is reached
//   POWEROFF n=N             the power button was pressed; everything is flushed
//   NODISK …, SMALL …        cannot begin; powers off
//   TRIMMED n=N              its agent was told to: what is behind the span, on the first disk, is discarded
//   FROZEN n=N, THAWED n=N   its agent was told to: everything is flushed, and nothing is written in between
//
// Kernel parameters, default: w.disks (1), w.span MiB of each disk (64), w.sync numbers between flushes (16, 0 never),
// w.seed (1), w.delay µs after each write (0), w.count last number (0: no end), w.start (0), w.resume look for the
// highest number first (1), w.stat ms between L lines (500), w.idle write nothing (0), w.stay do not power off when
// done (0), w.keepgoing repeat failed requests (0), w.agent answer on a virtio port as qemu-ga does, as far as freezing
// and trimming go (0), w.unused MiB of the first disk, behind the span, that a trim discards (0).

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/fs.h>

#include "pattern.h"

#define SCAN_BYTES (1 << 20)
#define MAX_SAMPLES 100000
#define MAX_BUTTONS 8
#define AGENT_MODULE "virtio_console.ko"

typedef unsigned long long ull;

static char command_line[4096];
static int disk_fd[MAX_DISKS], disks, keep_going;
static uint64_t blocks, seed, sync_every;
static uint64_t *buffer;
static struct pollfd buttons[MAX_BUTTONS];
static int button_count;
static double samples[MAX_SAMPLES], longest_flush;
static int sample_count;
static int agent_fd = -1, frozen;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static long parameter(const char *name, long fallback) {
  size_t length = strlen(name);
  for (char *p = command_line; (p = strstr(p, name)); p += length)
    if ((p == command_line || p[-1] == ' ') && p[length] == '=') return atol(p + length + 1);
  return fallback;
}

static void power_off(void) {
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

static void load_modules(void) {
  char path[160], name[128];
  FILE *list = fopen("/modules/order", "r");
  while (list && fscanf(list, "%127s", name) == 1) {
    if (!strcmp(name, AGENT_MODULE) && !parameter("w.agent", 0)) continue;
    snprintf(path, sizeof path, "/modules/%s", name);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0) printf("MODULE %s errno=%d\n", name, errno);
    if (fd >= 0) close(fd);
  }
  if (list) fclose(list);
}

static void open_buttons(void) {
  for (int i = 0; i < MAX_BUTTONS; i++) {
    char path[32];
    snprintf(path, sizeof path, "/dev/input/event%d", i);
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd >= 0) buttons[button_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
  }
}

// Waits that long (-1: for ever) and says whether the power button was pressed.
static int pressed_within(int milliseconds) {
  if (poll(buttons, button_count, milliseconds) <= 0) return 0;
  struct input_event event;
  for (int i = 0; i < button_count; i++)
    while (read(buttons[i].fd, &event, sizeof event) == sizeof event)
      if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) return 1;
  return 0;
}

// The first port there is: the domain has one. Ports are probed asynchronously, up to 4 s.
static void open_agent(void) {
  for (int tries = 0; tries < 400 && agent_fd < 0; tries++)
    for (int port = 0; port < 32 && agent_fd < 0; port++) {
      char path[32];
      snprintf(path, sizeof path, "/dev/vport%dp%d", port / 8, port % 8);
      agent_fd = open(path, O_RDWR | O_NONBLOCK);
      if (agent_fd < 0 && port == 31) usleep(10000);
    }
  if (agent_fd < 0) printf("NOAGENT errno=%d\n", errno);
}

static void open_disks(uint64_t span_bytes) {
  for (int d = 0; d < disks; d++) {
    char path[16];
    snprintf(path, sizeof path, "/dev/vd%c", 'a' + d);
    // Disks are probed asynchronously: up to 4 s for each.
    for (int tries = 0; tries < 400 && (disk_fd[d] = open(path, O_RDWR | O_DIRECT)) < 0; tries++) usleep(10000);
    uint64_t bytes = 0;
    if (disk_fd[d] < 0) {
      printf("NODISK %s\n", path);
      power_off();
    }
    if (ioctl(disk_fd[d], BLKGETSIZE64, &bytes) < 0 || bytes < span_bytes) {
      printf("SMALL %s bytes=%llu\n", path, (ull)bytes);
      power_off();
    }
  }
}

static uint64_t highest_number(void) {
  uint64_t top = 0, span_bytes = blocks * BLOCK_BYTES;
  char *chunk;
  if (posix_memalign((void **)&chunk, BLOCK_BYTES, SCAN_BYTES)) return 0;
  for (int d = 0; d < disks; d++)
    for (uint64_t at = 0; at < span_bytes; at += SCAN_BYTES) {
      ssize_t got = pread(disk_fd[d], chunk, SCAN_BYTES, at);
      for (ssize_t i = 0; i + BLOCK_BYTES <= got; i += BLOCK_BYTES) {
        uint64_t *words = (uint64_t *)(chunk + i);
        if (words[WORD_MAGIC] == MAGIC && words[WORD_SEED] == seed && words[WORD_NUMBER] > top) top = words[WORD_NUMBER];
      }
    }
  free(chunk);
  return top;
}

// Returns 0, or the errno of the failed write.
static int write_number(uint64_t n) {
  int disk = n % disks;
  uint64_t block = block_of(seed, n, blocks);
  fill(buffer, n, disk, block, seed);
  double begin = now();
  ssize_t got = pwrite(disk_fd[disk], buffer, BLOCK_BYTES, block * BLOCK_BYTES);
  int error = got == BLOCK_BYTES ? 0 : got < 0 ? errno : EIO;
  if (error) printf("WERR n=%llu errno=%d\n", (ull)n, error);
  else if (sample_count < MAX_SAMPLES) samples[sample_count++] = now() - begin;
  return error;
}

// Flushes all disks, then acknowledges n. Returns 0, or the errno of a failed flush.
static int flush_all(uint64_t n) {
  double begin = now();
  int error = 0;
  for (int d = 0; d < disks; d++)
    if (fdatasync(disk_fd[d])) error = errno;
  double seconds = now() - begin;
  if (seconds > longest_flush) longest_flush = seconds;
  if (error) printf("FERR n=%llu errno=%d\n", (ull)n, error);
  else printf("A %llu\n", (ull)n);
  return error;
}

// A QEMU that was killed may have lost any of the writes after the last flush, and kept later ones. They are written
// again before the stream goes on, newest first and each block once, so that no block ever goes back.
static void repair(uint64_t top) {
  for (uint64_t n = top; n > flushed_before(top, sync_every); n--) {
    int superseded = 0;
    for (uint64_t later = n + disks; later <= top; later += disks)
      superseded |= block_of(seed, later, blocks) == block_of(seed, n, blocks);
    if (!superseded && write_number(n)) power_off();
  }
  if (flush_all(top)) power_off();
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print_statistics(uint64_t n, double seconds) {
  if (sample_count == 0) return;
  qsort(samples, sample_count, sizeof samples[0], by_value);
  printf("L n=%llu rate=%.0f p50=%.0f p99=%.0f max=%.0f fmax=%.0f\n", (ull)n, sample_count / seconds,
         samples[sample_count / 2] * 1e6, samples[sample_count * 99 / 100] * 1e6, samples[sample_count - 1] * 1e6,
         longest_flush * 1e6);
  sample_count = 0;
  longest_flush = 0;
}

// Does `request` until it succeeds; gives up at once unless told to keep going.
static int persist(int (*request)(uint64_t), uint64_t n) {
  while (request(n)) {
    if (!keep_going) return -1;
    if (pressed_within(200)) power_off();
  }
  return 0;
}

static void stop_here(uint64_t n) {
  persist(flush_all, n);
  printf("POWEROFF n=%llu\n", (ull)n);
  power_off();
}

static void idle(uint64_t n) {
  while (!pressed_within(-1)) continue;
  stop_here(n);
}

static void answer_agent(const char *command, uint64_t n) {
  const char *id = strstr(command, "\"id\":");
  if (strstr(command, "guest-sync-delimited") && id)
    dprintf(agent_fd, "\xff{\"return\": %lld}\n", atoll(id + 5));
  else if (strstr(command, "guest-fsfreeze-status"))
    dprintf(agent_fd, "{\"return\": \"%s\"}\n", frozen ? "frozen" : "thawed");
  else if (strstr(command, "guest-fsfreeze-freeze") && !frozen && !flush_all(n)) {
    frozen = 1;
    printf("FROZEN n=%llu\n", (ull)n);
    dprintf(agent_fd, "{\"return\": 1}\n");
  } else if (strstr(command, "guest-fsfreeze-thaw")) {
    if (frozen) printf("THAWED n=%llu\n", (ull)n);
    dprintf(agent_fd, "{\"return\": %d}\n", frozen);
    frozen = 0;
  } else if (strstr(command, "guest-fstrim") && !frozen) {
    // There is no file system: what is behind the span, on the first disk, is what nobody uses.
    uint64_t range[2] = {parameter("w.span", 64) << 20, parameter("w.unused", 0) << 20};
    if (range[1] && ioctl(disk_fd[0], BLKDISCARD, range))
      dprintf(agent_fd, "{\"return\": {\"paths\": [{\"path\": \"/\", \"error\": \"errno %d\"}]}}\n", errno);
    else
      dprintf(agent_fd, "{\"return\": {\"paths\": [{\"path\": \"/\", \"trimmed\": %llu, \"minimum\": 0}]}}\n", (ull)range[1]);
    printf("TRIMMED n=%llu\n", (ull)n);
  } else
    dprintf(agent_fd, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\n");
}

// Answers what was asked; comes back when nothing is asked any more and it is not frozen.
static void serve_agent(uint64_t n) {
  static char line[512];
  static size_t length;
  unsigned char byte;
  for (;;) {
    if (read(agent_fd, &byte, 1) != 1) {
      if (!frozen) return;
      if (pressed_within(10)) stop_here(n);
    } else if (byte == 0xff) length = 0;
    else if (byte == '\n') {
      line[length] = 0;
      if (length) answer_agent(line, n);
      length = 0;
    } else if (length < sizeof line - 1) line[length++] = byte;
  }
}

static void write_stream(uint64_t n) {
  uint64_t count = parameter("w.count", 0);
  long delay = parameter("w.delay", 0);
  double period = parameter("w.stat", 500) / 1e3, last = now();
  while (!count || n < count) {
    if (persist(write_number, ++n)) return;
    if (sync_every && n % sync_every == 0 && persist(flush_all, n)) return;
    if (delay) usleep(delay);
    if (n % 16 == 0 && pressed_within(0)) stop_here(n);
    if (n % 16 == 0 && agent_fd >= 0) serve_agent(n);
    if (now() - last < period) continue;
    print_statistics(n, now() - last);
    last = now();
  }
  if (persist(flush_all, n)) return;
  printf("DONE n=%llu\n", (ull)n);
  if (parameter("w.stay", 0)) idle(n);
}

static void set_up(void) {
  mount("proc", "/proc", "proc", 0, 0);
  mount("dev", "/dev", "devtmpfs", 0, 0);
  int console = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
  for (int fd = 0; fd < 3; fd++) dup2(console, fd);
  setvbuf(stdout, NULL, _IOLBF, 4096);
  int fd = open("/proc/cmdline", O_RDONLY);
  if (read(fd, command_line, sizeof command_line - 1) < 0) printf("CMDLINE errno=%d\n", errno);
  close(fd);
  load_modules();
  open_buttons();
}

int main(void) {
  set_up();
  disks = parameter("w.disks", 1);
  if (disks < 1 || disks > MAX_DISKS) {
    printf("NODISK w.disks=%d, not 1 to %d\n", disks, MAX_DISKS);
    power_off();
  }
  uint64_t span_bytes = (uint64_t)parameter("w.span", 64) << 20;
  blocks = span_bytes / BLOCK_BYTES;
  seed = parameter("w.seed", 1);
  sync_every = parameter("w.sync", 16);
  keep_going = parameter("w.keepgoing", 0);
  if (posix_memalign((void **)&buffer, BLOCK_BYTES, BLOCK_BYTES)) power_off();
  open_disks(span_bytes);
  if (parameter("w.agent", 0)) open_agent();

  uint64_t start = parameter("w.start", 0);
  int resume = parameter("w.resume", 1) && start == 0;
  if (resume) start = highest_number();
  printf("READY start=%llu up=%.2f\n", (ull)start, now());
  if (parameter("w.idle", 0)) idle(start);
  if (resume && start) repair(start);
  write_stream(start);
  power_off();
}
