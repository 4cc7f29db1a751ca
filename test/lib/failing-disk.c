// A disk that fails, for one process: LD_PRELOAD of the daemon under test. Writes to the journal's files are refused once
// the file that FERRY_FAILING_DISK names is there, and until it is gone. It holds two numbers: how many more fsyncs of the
// journal succeed before (each is one transaction), and the errno of what is refused then.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static long left = -1;
static struct timespec seen;

static int is_journal(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  const char *name = strrchr(path, '/');
  return name != NULL && (strncmp(name, "/ferry.db", 9) == 0 || strncmp(name, "/reserve", 8) == 0);
}

// The errno to fail with now; 0: the disk is well.
static int trouble(int fd, int is_sync) {
  const char *path = getenv("FERRY_FAILING_DISK");
  struct stat found;
  if (path == NULL || stat(path, &found) != 0) {
    left = -1;
    return 0;
  }
  if (!is_journal(fd)) return 0;
  FILE *file = fopen(path, "r");
  long syncs = 0;
  int number = EIO;
  if (file == NULL) return 0;
  if (fscanf(file, "%ld %d", &syncs, &number) != 2) number = EIO;
  fclose(file);
  // Written anew: it counts anew.
  if (left < 0 || memcmp(&seen, &found.st_mtim, sizeof seen) != 0) left = syncs;
  seen = found.st_mtim;
  if (left == 0) return number;
  if (is_sync) left--;
  return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REFUSE(fd, is_sync)                 \
  do {                                      \
    int number = trouble(fd, is_sync);      \
    if (number != 0) {                      \
      errno = number;                       \
      return -1;                            \
    }                                       \
  } while (0)

ssize_t write(int fd, const void *data, size_t size) {
  REFUSE(fd, 0);
  return REAL(write)(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  REFUSE(fd, 0);
  return REAL(pwrite)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  REFUSE(fd, 0);
  return REAL(pwrite64)(fd, data, size, at);
}

int ftruncate64(int fd, off64_t size) {
  REFUSE(fd, 0);
  return REAL(ftruncate64)(fd, size);
}

int fsync(int fd) {
  REFUSE(fd, 1);
  return REAL(fsync)(fd);
}

int fdatasync(int fd) {
  REFUSE(fd, 1);
  return REAL(fdatasync)(fd);
}
