// The stream that the guest writes and the verifier expects. Sequence number n (from 1) goes to disk n % disks,
// to a block that is a hash of n, and its content is a function of n and the place: so any set of images can be
// asked which numbers it holds, and what it should hold if it were the state after number n.
#ifndef PATTERN_H
#define PATTERN_H

#include <stdint.h>

#define MAX_DISKS 8
#define BLOCK_BYTES 4096
#define BLOCK_WORDS (BLOCK_BYTES / 8)
#define MAGIC 0x424c4f434b464552ULL
#define GOLDEN 0x9e3779b97f4a7c15ULL

enum { WORD_MAGIC, WORD_NUMBER, WORD_PLACE, WORD_SEED, WORD_CONTENT };

static inline uint64_t mix(uint64_t x) {
  x += GOLDEN;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

static inline uint64_t block_of(uint64_t seed, uint64_t n, uint64_t blocks) { return mix(seed ^ n) % blocks; }

static inline void fill(uint64_t *words, uint64_t n, int disk, uint64_t block, uint64_t seed) {
  words[WORD_MAGIC] = MAGIC;
  words[WORD_NUMBER] = n;
  words[WORD_PLACE] = (uint64_t)disk << 56 | block;
  words[WORD_SEED] = seed;
  uint64_t content = mix(n * 1000003);
  for (int i = WORD_CONTENT; i < BLOCK_WORDS; i++) words[i] = content += GOLDEN;
}

// The last number that was flushed for certain before n was written: the guest flushes all disks after every
// `sync` numbers, before it goes on. 0 when it never flushes.
static inline uint64_t flushed_before(uint64_t n, uint64_t sync) { return sync && n ? (n - 1) / sync * sync : 0; }

#endif
