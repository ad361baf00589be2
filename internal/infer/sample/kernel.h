// The loops over rows of logits, in C because Go has no vectors. A level is a set of
// instructions (kernel.c). Every function does the same at every level, bit for bit:
// sums are sums of integers or have a written order, and what is rounded when is written down.
//
// A row of n logits is cut into blocks of SAMPLE_BLOCK. The top of a block is its
// largest logit. A scale is log2(e) over the temperature, at most 1e30. least and last
// say what of a row is wanted: the logits over least, and those that equal it up to
// index last; -Infinity stands for all. No logit is wanted that is -Infinity.
#ifndef TEMPO_SAMPLE_KERNEL_H
#define TEMPO_SAMPLE_KERNEL_H

#include <stdint.h>

#define SAMPLE_BLOCK 256
#define SAMPLE_BUCKETS 2048
// What is 2^-50 of the largest, or less, weighs nothing.
#define SAMPLE_NOTHING -50.0f

// sample_scan notes the tops. It returns 1 if a logit is not a number, else 0.
int sample_scan(int level, const float *x, int64_t n, float *tops);

// sample_scan_sums does as sample_scan and as sample_sums for all logits, in one pass.
int sample_scan_sums(int level, const float *x, int64_t n, float scale, float *tops, uint64_t *sums);

// sample_scan_mass does as sample_scan and adds up 2^((logit - largest) · scale) over the row,
// in one pass: right within a millionth, whereas the sums below, made for draws, lose up to
// 2^-27 of a block's largest with every logit. scale is from 1e-30.
int sample_scan_mass(int level, const float *x, int64_t n, double scale, float *tops, double *mass);

// sample_mark sets the bit of each logit that is least or more, of 64 in each of the words; the
// others stay. There are four words for each block, also the last.
void sample_mark(int level, const float *x, int64_t n, const float *tops, float least, uint64_t *words);

// sample_mix adds to the sums of `count` tokens of a row share · 2^((logit - max) · scale), right
// within a third of a millionth; but nothing of what is 2^-100 or less. max is the row's
// largest. scale is from 1e-30.
void sample_mix(int level, const float *x, const int32_t *tokens, int64_t count, float max, double scale, double share,
                double *sums);

// sample_sums adds up the values of the wanted logits of each block. A value is
// 2^27 · 2^((logit - top) · scale), rounded down. max is the largest of the tops.
void sample_sums(int level, const float *x, int64_t n, const float *tops, float max, float scale, float least,
                 int64_t last, uint64_t *sums);

// sample_list_sums is sample_sums for a row of which all that is wanted is among the
// `count` listed tokens.
void sample_list_sums(int level, const int32_t *tokens, const float *logits, int64_t count, int64_t n,
                      const float *tops, float scale, float least, int64_t last, uint64_t *sums);

// sample_weigh makes weights of n sums: each times 2^13 · 2^((x - max) · scale), rounded
// down. Without sums (NULL) each is 2^27, so that max weighs 2^40. It returns the total.
uint64_t sample_weigh(int level, const float *x, const uint64_t *sums, int64_t n, float max, float scale,
                      uint64_t *weights);

// sample_find returns the first token of block b at which the values, added up, pass at.
int64_t sample_find(int level, const float *x, int64_t n, int64_t b, float top, float scale, float least,
                    int64_t last, uint64_t at);

// sample_collect lists the logits that are least or more, in the order of the row. It
// returns how many there are; the first `room` of them are listed.
int64_t sample_collect(int level, const float *x, int64_t n, const float *tops, float least, int64_t room,
                       int32_t *tokens, float *logits);

// sample_zoom orders the row roughly, by SAMPLE_BUCKETS buckets from max downwards and
// one for the rest, and lists the bucket in which the sum over the largest logits first
// reaches target: the sum of their weights as sample_weigh has them without sums, or
// their number if `counting`. *above is the sum over the buckets before. It returns as
// sample_collect does.
int64_t sample_zoom(int level, const float *x, int64_t n, float max, float scale, int counting, uint64_t target,
                    uint64_t *above, int64_t room, int32_t *tokens, float *logits);

#endif
