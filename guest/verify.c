// Says what a set of raw images holds of the stream of pattern.h, as one line of JSON.
//
// usage: verify SPAN_MIB SEED SYNC ACKED IMAGE…      one image for each disk of the guest, in its order
//
//   top               highest number found on any image
//   lostAcked         blocks older than they must be once number ACKED was acknowledged
//   prefixViolations  blocks older than the last flush before `top`: no crash of any kind may leave those
//   holes             blocks older than `top` says, but not than that flush: legal after a crash of QEMU, never else
//   torn              blocks whose content belongs to no number of this stream, or to another place
//   first             the first block that is wrong, for a person

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pattern.h"

typedef unsigned long long ull;

static int disks;
static uint64_t blocks, seed;
static uint64_t *found[MAX_DISKS];
static char first_wrong[160];

static void note(const char *what, int disk, uint64_t block, uint64_t want, uint64_t got) {
  if (first_wrong[0]) return;
  snprintf(first_wrong, sizeof first_wrong, "%s: disk %d block %llu holds %llu, expected %llu", what, disk, (ull)block,
           (ull)got, (ull)want);
}

// Which number each block of one image holds. Returns how many blocks are torn.
static uint64_t read_image(const char *path, int disk) {
  static uint64_t words[BLOCK_WORDS], expected[BLOCK_WORDS];
  uint64_t torn = 0;
  int fd = open(path, O_RDONLY);
  if (fd < 0) {
    perror(path);
    exit(2);
  }
  for (uint64_t block = 0; block < blocks; block++) {
    ssize_t got = pread(fd, words, BLOCK_BYTES, block * BLOCK_BYTES);
    if (got < BLOCK_BYTES) memset((char *)words + (got > 0 ? got : 0), 0, BLOCK_BYTES - (got > 0 ? got : 0));
    uint64_t n = words[WORD_NUMBER];
    memset(expected, 0, BLOCK_BYTES);
    if (words[WORD_MAGIC] == MAGIC) fill(expected, n, disk, block, seed);
    else n = 0;
    int here = n == 0 || (n % disks == (uint64_t)disk && block_of(seed, n, blocks) == block);
    if (!here || memcmp(words, expected, BLOCK_BYTES)) {
      torn++;
      note("torn or foreign", disk, block, 0, n);
    } else found[disk][block] = n;
  }
  close(fd);
  return torn;
}

// What each block holds after number `last`.
static void state_after(uint64_t last, uint64_t *state[MAX_DISKS]) {
  for (int d = 0; d < disks; d++) memset(state[d], 0, blocks * sizeof(uint64_t));
  for (uint64_t n = 1; n <= last; n++) state[n % disks][block_of(seed, n, blocks)] = n;
}

// How many blocks are older than they are in `state`.
static uint64_t count_older(uint64_t *state[MAX_DISKS], const char *what) {
  uint64_t older = 0;
  for (int d = 0; d < disks; d++)
    for (uint64_t block = 0; block < blocks; block++)
      if (found[d][block] < state[d][block]) {
        older++;
        note(what, d, block, state[d][block], found[d][block]);
      }
  return older;
}

int main(int argc, char **argv) {
  disks = argc - 5;
  if (disks < 1 || disks > MAX_DISKS) {
    fprintf(stderr, "usage: verify SPAN_MIB SEED SYNC ACKED IMAGE…\n");
    return 2;
  }
  blocks = ((uint64_t)atoll(argv[1]) << 20) / BLOCK_BYTES;
  seed = atoll(argv[2]);
  uint64_t sync_every = atoll(argv[3]), acked = atoll(argv[4]), top = 0, torn = 0;
  uint64_t *state[MAX_DISKS];
  for (int d = 0; d < disks; d++) {
    found[d] = calloc(blocks, sizeof(uint64_t));
    state[d] = calloc(blocks, sizeof(uint64_t));
    torn += read_image(argv[5 + d], d);
  }
  for (int d = 0; d < disks; d++)
    for (uint64_t block = 0; block < blocks; block++)
      if (found[d][block] > top) top = found[d][block];

  state_after(acked, state);
  uint64_t lost = count_older(state, "lost although acknowledged");
  state_after(flushed_before(top, sync_every), state);
  uint64_t violations = count_older(state, "older than a flush before a number that is there");
  state_after(top, state);
  uint64_t holes = count_older(state, "older than the highest number says") - violations;

  printf("{\"top\":%llu,\"acked\":%llu,\"lostAcked\":%llu,\"prefixViolations\":%llu,\"holes\":%llu,\"torn\":%llu,\"first\":\"%s\"}\n",
         (ull)top, (ull)acked, (ull)lost, (ull)violations, (ull)holes, (ull)torn, first_wrong);
  return 0;
}
