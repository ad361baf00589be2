// The kernels, written for vectors of WIDTH floats. kernel.c includes this once for
// each level and says before what NAME, TARGET, WIDTH, MAX (of two vectors; the second
// where the first is not a number), FMA (the first times the second plus the third,
// rounded once), BITS (of the lanes of a comparison, the first the lowest) and ANY (is one set?) are. What the functions do stands
// in kernel.h.

#define INLINE TARGET static inline __attribute__((always_inline))
#define VF NAME(floats)
#define VI NAME(ints)
#define VU NAME(uints)
#define LOAD(p) ((VF)(*(const NAME(unaligned) *)(p)))
#define ALL(value) ((VF){0} + (value))

typedef float VF __attribute__((vector_size(4 * WIDTH)));
typedef float NAME(unaligned) __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t VI __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t VU __attribute__((vector_size(4 * WIDTH)));

// 1.5 · 2^23: what is added to it is rounded to an integer.
#define MAGIC 12582912.0f

// fraction is 2^f times 2^24: from 2^23.5 to 2^24.5, a whole number. f is from -0.5 to 0.5.
// The polynomial is a minimax one, exact at 0; it is off by 1.1e-7 at most.
INLINE VF NAME(fraction)(VF f) {
	VF p = FMA(f, ALL(0x1.470b4ap+11f), ALL(0x1.5f7276p+14f));
	p = FMA(p, f, ALL(0x1.3b270ep+17f));
	p = FMA(p, f, ALL(0x1.c6ae72p+19f));
	p = FMA(p, f, ALL(0x1.ebfbe2p+21f));
	p = FMA(p, f, ALL(0x1.62e432p+23f));
	return FMA(p, f, ALL(0x1p+24f));
}

// power is 2^y without its exponent, as fraction has it. The low bits of *exponent are the
// exponent plus offset. y is from -2^20 to 1.
INLINE VF NAME(power)(VF y, float offset, VU *exponent) {
	const float magic = MAGIC + offset;
	VF t = y + magic;
	*exponent = (VU)t;
	return NAME(fraction)(y - (t - magic));
}

// values of a vector of logits.
INLINE VU NAME(values)(VF x, VF top, float scale) {
	VU e;
	VF p = NAME(power)(MAX((x - top) * scale, ALL(-31.0f)), 3.0f, &e);
	return (VU)__builtin_convertvector((VF)((VU)p + (e << 23)), VI);
}

// sum of the values of a block. A lane takes 16 of them before it is emptied.
INLINE uint64_t NAME(sum)(const float *x, float top, float scale) {
	uint64_t sum = 0;
	for (int i = 0; i < SAMPLE_BLOCK; i += 16 * WIDTH) {
		VU lanes = {0};
		for (int j = 0; j < 16 * WIDTH; j += WIDTH)
			lanes += NAME(values)(LOAD(x + i + j), ALL(top), scale);
		for (int j = 0; j < WIDTH; j++)
			sum += lanes[j];
	}
	return sum;
}

// sum_wanted is sum of what is wanted of a block: over least, or equal to it up to index until.
INLINE uint64_t NAME(sum_wanted)(const float *x, float top, float scale, float least, int32_t until) {
	VI index;
	for (int j = 0; j < WIDTH; j++)
		index[j] = j;
	uint64_t sum = 0;
	for (int i = 0; i < SAMPLE_BLOCK; i += 16 * WIDTH) {
		VU lanes = {0};
		for (int j = 0; j < 16 * WIDTH; j += WIDTH, index += WIDTH) {
			VF v = LOAD(x + i + j);
			VI wanted = (v > least) | ((v == least) & (index <= until));
			lanes += NAME(values)(v, ALL(top), scale) & (VU)wanted;
		}
		for (int j = 0; j < WIDTH; j++)
			sum += lanes[j];
	}
	return sum;
}

// top of a block. odd gets the lanes that are not numbers.
INLINE float NAME(top)(const float *x, VI *odd) {
	VF a = ALL(-INFINITY), b = a;
	for (int i = 0; i < SAMPLE_BLOCK; i += 2 * WIDTH) {
		VF u = LOAD(x + i), v = LOAD(x + i + WIDTH);
		*odd |= (u != u) | (v != v);
		a = MAX(u, a);
		b = MAX(v, b);
	}
	a = MAX(a, b);
	float best = a[0];
	for (int i = 1; i < WIDTH; i++)
		best = a[i] > best ? a[i] : best;
	return best;
}

// until is the index last of a row in the block that begins at from.
INLINE int32_t NAME(until)(int64_t last, int64_t from) {
	return last < from ? -1 : last - from < SAMPLE_BLOCK ? (int32_t)(last - from) : SAMPLE_BLOCK;
}

// block b of a row: in place if all of it is wanted, else a copy in buffer that has
// -Infinity for what is not wanted and for what is beyond the row's end.
INLINE const float *NAME(block)(const float *x, int64_t n, int64_t b, float least, int64_t last, float *buffer) {
	int64_t from = b * SAMPLE_BLOCK;
	x += from;
	if (n - from >= SAMPLE_BLOCK && least == -INFINITY)
		return x;
	int32_t count = n - from < SAMPLE_BLOCK ? (int32_t)(n - from) : SAMPLE_BLOCK;
	int32_t until = NAME(until)(last, from);
	for (int32_t i = 0; i < count; i++)
		buffer[i] = x[i] < least || (x[i] == least && i > until) ? -INFINITY : x[i]; // NaN stays
	for (int32_t i = count; i < SAMPLE_BLOCK; i++)
		buffer[i] = -INFINITY;
	return buffer;
}

TARGET static int NAME(scan)(const float *x, int64_t n, float *tops) {
	float buffer[SAMPLE_BLOCK];
	VI odd = {0};
	for (int64_t b = 0; b * SAMPLE_BLOCK < n; b++) {
		const float *p = NAME(block)(x, n, b, -INFINITY, n, buffer);
		tops[b] = NAME(top)(p, &odd);
	}
	return ANY(odd);
}

// Each block is summed while it is in the nearest cache, and after the next one's top
// is known, so that the sum does not wait for its own.
TARGET static int NAME(scan_sums)(const float *x, int64_t n, float scale, float *tops, uint64_t *sums) {
	float buffer[SAMPLE_BLOCK];
	VI odd = {0};
	float max = -INFINITY;
	const float *next = NAME(block)(x, n, 0, -INFINITY, n, buffer);
	float next_top = NAME(top)(next, &odd);
	for (int64_t b = 0; b * SAMPLE_BLOCK < n; b++) {
		const float *p = next;
		float top = next_top;
		if ((b + 1) * SAMPLE_BLOCK < n) {
			next = NAME(block)(x, n, b + 1, -INFINITY, n, buffer);
			next_top = NAME(top)(next, &odd);
		}
		max = top > max ? top : max;
		tops[b] = top;
		sums[b] = (top - max) * scale < SAMPLE_NOTHING ? 0 : NAME(sum)(p, top, scale);
	}
	return ANY(odd);
}

// parts of a vector of logits: 2^24 · 2^((x - max) · (scale + rest)). The exponent is as
// exact as the difference is. least is the difference that stands for all below it.
INLINE VF NAME(parts)(VF x, float max, float least, float scale, float rest) {
	VF d = MAX(x - max, ALL(least));
	VF t = d * scale + MAGIC;
	VF f = FMA(d, ALL(scale), MAGIC - t);
	f = FMA(d, ALL(rest), f);
	return (VF)((VU)NAME(fraction)(f) + ((VU)t << 23));
}

// mass is the sum of a block's parts: by 32 lanes, in pairs, then by 8, then in double
// precision, in the same order at every level.
INLINE double NAME(mass)(const float *x, float max, float least, float scale, float rest) {
	VF lanes[32 / WIDTH] = {{0}};
	for (int i = 0; i < SAMPLE_BLOCK; i += 64)
		for (int j = 0; j < 32 / WIDTH; j++) {
			const float *p = x + i + j * WIDTH;
			VF first = NAME(parts)(LOAD(p), max, least, scale, rest);
			lanes[j] += first + NAME(parts)(LOAD(p + 32), max, least, scale, rest);
		}
	for (int half = 16 / WIDTH; half >= 8 / WIDTH; half /= 2)
		for (int j = 0; j < half; j++)
			lanes[j] += lanes[j + half];
	float s[8];
	memcpy(s, lanes, sizeof s);
	return (((double)s[0] + s[1]) + ((double)s[2] + s[3])) + (((double)s[4] + s[5]) + ((double)s[6] + s[7]));
}

// The parts are relative to the largest logit so far. Where a larger one comes, the sum is
// made smaller.
TARGET static int NAME(scan_mass)(const float *x, int64_t n, double scale, float *tops, double *mass) {
	const float high = (float)scale, low = (float)(scale - high), least = -100.0f / high;
	float buffer[SAMPLE_BLOCK];
	VI odd = {0};
	float max = -INFINITY;
	double sum = 0;
	const float *next = NAME(block)(x, n, 0, -INFINITY, n, buffer);
	float next_top = NAME(top)(next, &odd);
	for (int64_t b = 0; b * SAMPLE_BLOCK < n; b++) {
		const float *p = next;
		float top = next_top;
		if ((b + 1) * SAMPLE_BLOCK < n) {
			next = NAME(block)(x, n, b + 1, -INFINITY, n, buffer);
			next_top = NAME(top)(next, &odd);
		}
		tops[b] = top;
		if (top > max) {
			sum *= exp2(((double)max - top) * scale);
			max = top;
		}
		if ((top - max) * high >= SAMPLE_NOTHING)
			sum += NAME(mass)(p, max, least, high, low);
	}
	*mass = sum * 0x1p-24;
	return ANY(odd);
}

TARGET static void NAME(mark)(const float *x, int64_t n, const float *tops, float least, uint64_t *words) {
	float buffer[SAMPLE_BLOCK];
	for (int64_t b = 0; b * SAMPLE_BLOCK < n; b++) {
		if (tops[b] < least)
			continue;
		const float *p = NAME(block)(x, n, b, -INFINITY, n, buffer);
		for (int i = 0; i < SAMPLE_BLOCK; i += 64) {
			uint64_t word = 0;
			for (int j = 0; j < 64; j += WIDTH) {
				VF v = LOAD(p + i + j);
				word |= BITS((v >= least) & (v > -INFINITY)) << j;
			}
			words[(b * SAMPLE_BLOCK + i) / 64] |= word;
		}
	}
}

// exact_parts are parts that are right also where a difference of logits needs more bits than a
// float has; 0 instead of what is 2^-100 of the largest or less.
INLINE VF NAME(exact_parts)(VF x, float max, float least, float scale, float rest) {
	VF d = x - max;
	VI counts = d > least;
	VF back = d - x;
	VF lost = (x - (d - back)) - (max + back); // what d was rounded by, exactly
	lost = (VF)((VI)lost & counts);            // it is no number where x is -Infinity
	d = MAX(d, ALL(least));
	VF t = d * scale + MAGIC;
	VF f = FMA(d, ALL(scale), MAGIC - t);
	f = FMA(d, ALL(rest), f);
	f = FMA(lost, ALL(scale), f);
	VF p = (VF)((VU)NAME(fraction)(f) + ((VU)t << 23));
	return (VF)((VI)p & counts);
}

TARGET static void NAME(mix)(const float *x, const int32_t *tokens, int64_t count, float max, double scale,
                             double share, double *sums) {
	const float high = (float)scale, low = (float)(scale - high), least = -100.0f / high;
	float buffer[SAMPLE_BLOCK];
	share *= 0x1p-24;
	for (; count > 0; count -= SAMPLE_BLOCK, tokens += SAMPLE_BLOCK, sums += SAMPLE_BLOCK) {
		int n = count < SAMPLE_BLOCK ? (int)count : SAMPLE_BLOCK;
		for (int i = 0; i < n; i++)
			buffer[i] = x[tokens[i]];
		for (int i = n; i % WIDTH != 0; i++)
			buffer[i] = -INFINITY;
		for (int i = 0; i < n; i += WIDTH) {
			VF v = NAME(exact_parts)(LOAD(buffer + i), max, least, high, low);
			memcpy(buffer + i, &v, sizeof v);
		}
		for (int i = 0; i < n; i++)
			sums[i] += share * buffer[i];
	}
}

TARGET static void NAME(sums)(const float *x, int64_t n, const float *tops, float max, float scale, float least,
                              int64_t last, uint64_t *sums) {
	float buffer[SAMPLE_BLOCK];
	for (int64_t b = 0; b * SAMPLE_BLOCK < n; b++) {
		int64_t from = b * SAMPLE_BLOCK;
		sums[b] = 0;
		if (tops[b] < least || (tops[b] - max) * scale < SAMPLE_NOTHING)
			continue;
		if (least == -INFINITY || n - from < SAMPLE_BLOCK)
			sums[b] = NAME(sum)(NAME(block)(x, n, b, least, last, buffer), tops[b], scale);
		else
			sums[b] = NAME(sum_wanted)(x + from, tops[b], scale, least, NAME(until)(last, from));
	}
}

TARGET static void NAME(list_sums)(const int32_t *tokens, const float *logits, int64_t count, int64_t n,
                                   const float *tops, float scale, float least, int64_t last, uint64_t *sums) {
	for (int64_t b = 0; b * SAMPLE_BLOCK < n; b++)
		sums[b] = 0;
	for (int64_t i = 0; i < count; i += WIDTH) {
		VF x = ALL(-INFINITY), top = {0};
		int lanes = count - i < WIDTH ? (int)(count - i) : WIDTH;
		for (int j = 0; j < lanes; j++) {
			x[j] = logits[i + j];
			top[j] = tops[tokens[i + j] / SAMPLE_BLOCK];
		}
		VU v = NAME(values)(x, top, scale);
		for (int j = 0; j < lanes; j++)
			if (x[j] > least || (x[j] == least && tokens[i + j] <= last))
				sums[tokens[i + j] / SAMPLE_BLOCK] += v[j];
	}
}

// split gives the factors of a block's logits: a mantissa and how far to shift right.
INLINE void NAME(split)(const float *x, float max, float scale, uint32_t *mantissa, uint32_t *shift) {
	for (int i = 0; i < SAMPLE_BLOCK; i += WIDTH) {
		VU e;
		VI m = __builtin_convertvector(NAME(power)(MAX((LOAD(x + i) - max) * scale, ALL(-52.0f)), 0.0f, &e), VI);
		VU k = 0x4b400000u + 11u - e; // of magic's bits and 11, 11 less the exponent is left
		memcpy(mantissa + i, &m, sizeof m);
		memcpy(shift + i, &k, sizeof k);
	}
}

TARGET static uint64_t NAME(weigh)(const float *x, const uint64_t *sums, int64_t n, float max, float scale,
                                   uint64_t *weights) {
	float buffer[SAMPLE_BLOCK];
	uint32_t mantissa[SAMPLE_BLOCK], shift[SAMPLE_BLOCK];
	uint64_t total = 0;
	for (int64_t b = 0; b * SAMPLE_BLOCK < n; b++) {
		NAME(split)(NAME(block)(x, n, b, -INFINITY, n, buffer), max, scale, mantissa, shift);
		int64_t from = b * SAMPLE_BLOCK, end = n - from < SAMPLE_BLOCK ? n : from + SAMPLE_BLOCK;
		for (int64_t i = from; i < end; i++) {
			weights[i] = ((sums ? sums[i] : 1u << 27) * mantissa[i - from]) >> shift[i - from];
			total += weights[i];
		}
	}
	return total;
}

TARGET static int64_t NAME(find)(const float *x, int64_t n, int64_t b, float top, float scale, float least,
                                 int64_t last, uint64_t at) {
	float buffer[SAMPLE_BLOCK];
	const float *p = NAME(block)(x, n, b, least, last, buffer);
	for (int i = 0; i < SAMPLE_BLOCK; i += WIDTH) {
		VU v = NAME(values)(LOAD(p + i), ALL(top), scale);
		for (int j = 0; j < WIDTH; j++) {
			if (at < v[j])
				return b * SAMPLE_BLOCK + i + j;
			at -= v[j];
		}
	}
	return -1;
}

TARGET static int64_t NAME(collect)(const float *x, int64_t n, const float *tops, float least, int64_t room,
                                    int32_t *tokens, float *logits) {
	int64_t found = 0;
	for (int64_t b = 0; b * SAMPLE_BLOCK < n; b++) {
		if (tops[b] < least)
			continue;
		int64_t end = n - b * SAMPLE_BLOCK < SAMPLE_BLOCK ? n : (b + 1) * SAMPLE_BLOCK;
		for (int64_t i = b * SAMPLE_BLOCK, next; i < end; i = next) {
			next = end - i < WIDTH ? end : i + WIDTH;
			if (next - i == WIDTH && !ANY(LOAD(x + i) >= least))
				continue;
			for (int64_t j = i; j < next; j++) {
				if (x[j] < least || x[j] == -INFINITY)
					continue;
				if (found < room) {
					tokens[found] = (int32_t)j;
					logits[found] = x[j];
				}
				found++;
			}
		}
	}
	return found;
}

// buckets of a vector of logits: how far each is below max, in 48ths of a halving of its
// probability, so that the weights of the last bucket are 0.
INLINE VI NAME(buckets)(VF x, float max, float scale) {
	return __builtin_convertvector(MAX((x - max) * scale, ALL(-SAMPLE_BUCKETS / 48.0f)) * -48.0f, VI);
}

// fill adds a block to the masses of the buckets. Every bucket has two, since the same
// one often comes twice in a row.
INLINE void NAME(fill)(const float *x, float max, float scale, int counting, uint64_t mass[2][SAMPLE_BUCKETS + 1]) {
	int32_t bucket[SAMPLE_BLOCK];
	uint32_t mantissa[SAMPLE_BLOCK], shift[SAMPLE_BLOCK];
	for (int i = 0; i < SAMPLE_BLOCK; i += WIDTH) {
		VI v = NAME(buckets)(LOAD(x + i), max, scale);
		memcpy(bucket + i, &v, sizeof v);
	}
	if (counting) {
		for (int i = 0; i < SAMPLE_BLOCK; i++)
			mass[i % 2][bucket[i]] += x[i] > -INFINITY;
		return;
	}
	NAME(split)(x, max, scale, mantissa, shift);
	for (int i = 0; i < SAMPLE_BLOCK; i++)
		mass[i % 2][bucket[i]] += ((uint64_t)mantissa[i] << 27) >> shift[i];
}

TARGET static int64_t NAME(zoom)(const float *x, int64_t n, float max, float scale, int counting, uint64_t target,
                                 uint64_t *above, int64_t room, int32_t *tokens, float *logits) {
	float buffer[SAMPLE_BLOCK];
	uint64_t mass[2][SAMPLE_BUCKETS + 1];
	memset(mass, 0, sizeof mass);
	for (int64_t b = 0; b * SAMPLE_BLOCK < n; b++)
		NAME(fill)(NAME(block)(x, n, b, -INFINITY, n, buffer), max, scale, counting, mass);
	int at = 0;
	*above = 0;
	for (; at < SAMPLE_BUCKETS && *above + mass[0][at] + mass[1][at] < target; at++)
		*above += mass[0][at] + mass[1][at];
	int64_t found = 0;
	for (int64_t b = 0; b * SAMPLE_BLOCK < n; b++) {
		const float *p = NAME(block)(x, n, b, -INFINITY, n, buffer);
		for (int i = 0; i < SAMPLE_BLOCK; i += WIDTH) {
			VI in = NAME(buckets)(LOAD(p + i), max, scale) == at;
			if (!ANY(in))
				continue;
			for (int j = 0; j < WIDTH; j++) {
				if (!in[j] || p[i + j] == -INFINITY)
					continue;
				if (found < room) {
					tokens[found] = (int32_t)(b * SAMPLE_BLOCK + i + j);
					logits[found] = p[i + j];
				}
				found++;
			}
		}
	}
	return found;
}

#undef NAME
#undef TARGET
#undef WIDTH
#undef MAX
#undef ANY
#undef BITS
#undef FMA
#undef INLINE
#undef MAGIC
#undef VF
#undef VI
#undef VU
#undef LOAD
#undef ALL
