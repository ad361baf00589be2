// The kernels of kernel_lanes.h, compiled once for each level: 1 is AVX2 and FMA, 0 is
// what every CPU of the architecture has (SSE2, NEON). The caller has asked the CPU.
//
// cgo compiles this with -std=c11, in which the compiler fuses no multiplication with an
// addition on its own. x86 below level 1 has no fused operation: the C library has it in
// software, which is slow and gives the same bits.
#include "kernel.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#if defined(__x86_64__)

#define NAME(f) f##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define WIDTH 8
#define MAX(a, b) ((VF)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define FMA(a, b, c) ((VF)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define BITS(m) ((uint64_t)_mm256_movemask_ps((__m256)(m)))
#define ANY(m) (BITS(m) != 0)
#include "kernel_lanes.h"

#define MAX(a, b) ((VF)_mm_max_ps((__m128)(a), (__m128)(b)))
#define BITS(m) ((uint64_t)_mm_movemask_ps((__m128)(m)))
#define ANY(m) (BITS(m) != 0)

#elif defined(__aarch64__)

#define MAX(a, b) ((VF)vmaxnmq_f32((float32x4_t)(a), (float32x4_t)(b)))
#define FMA(a, b, c) ((VF)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#define BITS(m) ((uint64_t)vaddvq_u32(vandq_u32((uint32x4_t)(m), (uint32x4_t){1, 2, 4, 8})))
#define ANY(m) (vmaxvq_u32((uint32x4_t)(m)) != 0)

#else

#define MAX(a, b) ((VF)(((VI)(a) & ((a) > (b))) | ((VI)(b) & ~((a) > (b)))))
#define BITS(m) ((uint64_t)(((m)[0] & 1) | ((m)[1] & 2) | ((m)[2] & 4) | ((m)[3] & 8)))
#define ANY(m) (BITS(m) != 0)

#endif

#ifndef FMA
#define FMA(a, b, c) ((VF){FMA_LANE(a, b, c, 0), FMA_LANE(a, b, c, 1), FMA_LANE(a, b, c, 2), FMA_LANE(a, b, c, 3)})
#define FMA_LANE(a, b, c, i) fmaf((a)[i], (b)[i], (c)[i])
#endif

#define NAME(f) f##_plain
#define TARGET
#define WIDTH 4
#include "kernel_lanes.h"

#if defined(__x86_64__)
#define AT_LEVEL(level, f, ...) ((level) == 1 ? f##_avx2(__VA_ARGS__) : f##_plain(__VA_ARGS__))
#else
#define AT_LEVEL(level, f, ...) ((void)(level), f##_plain(__VA_ARGS__))
#endif

int sample_scan(int level, const float *x, int64_t n, float *tops) {
	return AT_LEVEL(level, scan, x, n, tops);
}

int sample_scan_sums(int level, const float *x, int64_t n, float scale, float *tops, uint64_t *sums) {
	return AT_LEVEL(level, scan_sums, x, n, scale, tops, sums);
}

int sample_scan_mass(int level, const float *x, int64_t n, double scale, float *tops, double *mass) {
	return AT_LEVEL(level, scan_mass, x, n, scale, tops, mass);
}

void sample_mark(int level, const float *x, int64_t n, const float *tops, float least, uint64_t *words) {
	AT_LEVEL(level, mark, x, n, tops, least, words);
}

void sample_mix(int level, const float *x, const int32_t *tokens, int64_t count, float max, double scale, double share,
                double *sums) {
	AT_LEVEL(level, mix, x, tokens, count, max, scale, share, sums);
}

void sample_sums(int level, const float *x, int64_t n, const float *tops, float max, float scale, float least,
                 int64_t last, uint64_t *sums) {
	AT_LEVEL(level, sums, x, n, tops, max, scale, least, last, sums);
}

void sample_list_sums(int level, const int32_t *tokens, const float *logits, int64_t count, int64_t n,
                      const float *tops, float scale, float least, int64_t last, uint64_t *sums) {
	AT_LEVEL(level, list_sums, tokens, logits, count, n, tops, scale, least, last, sums);
}

uint64_t sample_weigh(int level, const float *x, const uint64_t *sums, int64_t n, float max, float scale,
                      uint64_t *weights) {
	return AT_LEVEL(level, weigh, x, sums, n, max, scale, weights);
}

int64_t sample_find(int level, const float *x, int64_t n, int64_t b, float top, float scale, float least,
                    int64_t last, uint64_t at) {
	return AT_LEVEL(level, find, x, n, b, top, scale, least, last, at);
}

int64_t sample_collect(int level, const float *x, int64_t n, const float *tops, float least, int64_t room,
                       int32_t *tokens, float *logits) {
	return AT_LEVEL(level, collect, x, n, tops, least, room, tokens, logits);
}

int64_t sample_zoom(int level, const float *x, int64_t n, float max, float scale, int counting, uint64_t target,
                    uint64_t *above, int64_t room, int32_t *tokens, float *logits) {
	return AT_LEVEL(level, zoom, x, n, max, scale, counting, target, above, room, tokens, logits);
}
