#include "attention.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// struct tensor is ggml_tensor, of the pinned version.
struct tensor {
	int32_t type;
	void *buffer;
	int64_t ne[4];
	size_t nb[4];
	int32_t op;
	int32_t op_params[16];
	int32_t flags;
	struct tensor *src[10];
	struct tensor *view_src;
	size_t view_offs;
	void *data;
	char name[64];
	void *extra;
	char padding[8];
};

enum { type_f32 = 0, type_i64 = 27 };

typedef const char *op_desc_function(const struct tensor *t);
typedef bool is_host_function(void *buffer);
typedef void get_function(const struct tensor *t, void *data, size_t offset, size_t size);

struct attention {
	op_desc_function *op_desc;
	is_host_function *is_host;
	get_function *get;

	int32_t n;
	const struct attended *attended;
	const int32_t *cells;
	double *sums;
	int32_t rows;
	int64_t *placed;

	bool is_placed;
	int32_t layers;
	char *scratch; // a part of a device's tensor
	size_t scratch_size, most;
};

struct attention *attention_new(void *op_desc, void *is_host, void *get, size_t most) {
	struct attention *a = calloc(1, sizeof *a);
	if (a != NULL) {
		a->op_desc = (op_desc_function *)op_desc;
		a->is_host = (is_host_function *)is_host;
		a->get = (get_function *)get;
		a->most = most;
	}
	return a;
}

void attention_free(struct attention *a) {
	free(a->scratch);
	free(a);
}

void attention_want(struct attention *a, int32_t n, const struct attended *attended, const int32_t *cells, double *sums,
                    int32_t rows, int64_t *placed) {
	a->n = n;
	a->attended = attended;
	a->cells = cells;
	a->sums = sums;
	a->rows = rows;
	a->placed = placed;
	a->is_placed = false;
	a->layers = 0;
}

int32_t attention_layers(const struct attention *a) { return a->layers; }

bool attention_placed(const struct attention *a) { return a->is_placed; }

static const void *host(const struct attention *a, const struct tensor *t) {
	void *buffer = t->view_src != NULL ? t->view_src->buffer : t->buffer;
	return buffer != NULL && a->is_host(buffer) ? t->data : NULL;
}

// indices is the tensor of the cells that the batch's rows are written to, if t is such a
// write of the keys; else NULL. That of the values may have an index for each number.
static const struct tensor *indices(const struct attention *a, const struct tensor *t) {
	if (strcmp(a->op_desc(t), "SET_ROWS") != 0) {
		return NULL;
	}
	const struct tensor *rows = t->src[1];
	return rows != NULL && rows->type == type_i64 && rows->ne[0] == a->rows ? rows : NULL;
}

static void read_cells(struct attention *a, const struct tensor *rows) {
	const size_t size = (size_t)a->rows * sizeof *a->placed;
	const void *data = host(a, rows);
	if (data != NULL) {
		memcpy(a->placed, data, size);
	} else {
		a->get(rows, a->placed, 0, size);
	}
	a->is_placed = true;
}

// from_device copies a part of a device's tensor into the scratch; NULL = there is no memory.
static const char *from_device(struct attention *a, const struct tensor *t, size_t offset, size_t size) {
	if (a->scratch_size < size) {
		char *scratch = realloc(a->scratch, size);
		if (scratch == NULL) {
			return NULL;
		}
		a->scratch = scratch;
		a->scratch_size = size;
	}
	a->get(t, a->scratch, offset, size);
	return a->scratch;
}

// span is how many bytes some rows of some heads take, from the first of all to the end of the last.
static size_t span(const struct tensor *t, int64_t rows, int64_t heads) {
	return (size_t)(heads - 1) * t->nb[2] + (size_t)(rows - 1) * t->nb[1] + (size_t)t->ne[0] * sizeof(float);
}

// a_copy is how many bytes a device copies in the time that it takes to begin a copy, roughly.
static const size_t a_copy = 128 << 10;

// is_copied_whole reports whether one copy of a device's weights takes no longer than one for each
// head of each of those asked for, which are of their rows alone, and fits.
static bool is_copied_whole(const struct attention *a, const struct tensor *t) {
	const size_t heads = (size_t)t->ne[2], whole = span(t, t->ne[1], t->ne[2]);
	size_t parts = 0;
	for (const struct attended *one = a->attended; one < a->attended + a->n; one++) {
		parts += heads * (span(t, one->rows, 1) + a_copy);
	}
	return whole <= a->most && whole + a_copy <= parts;
}

// within reports whether the rows and cells of one are among so many.
static bool within(const struct attention *a, const struct attended *one, int64_t rows, int64_t cells) {
	if (one->first_row < 0 || one->rows < 1 || one->first_row + one->rows > rows) {
		return false;
	}
	for (int32_t i = one->at; i < one->at + one->n; i++) {
		if (a->cells[i] < 0 || a->cells[i] >= cells) {
			return false;
		}
	}
	return true;
}

// add_head adds what one of those asked for has in a head. whole is all of the tensor, or NULL where
// its rows must be copied from the device.
static bool add_head(struct attention *a, const struct tensor *t, const struct attended *one, int64_t head,
                     const char *whole) {
	const int64_t fit = a->most < t->nb[1] ? 1 : (int64_t)(a->most / t->nb[1]);
	for (int64_t done = 0, n; done < one->rows; done += n) {
		n = whole != NULL || one->rows - done < fit ? one->rows - done : fit;
		const size_t offset = (size_t)head * t->nb[2] + (size_t)(one->first_row + done) * t->nb[1];
		const char *rows = whole != NULL ? whole + offset : from_device(a, t, offset, span(t, n, 1));
		if (rows == NULL) {
			return false;
		}
		for (int64_t row = 0; row < n; row++) {
			const float *weights = (const float *)(rows + (size_t)row * t->nb[1]);
			for (int32_t i = one->at; i < one->at + one->n; i++) {
				a->sums[i] += weights[a->cells[i]];
			}
		}
	}
	return true;
}

// are_expected reports whether these are weights, of [cells, rows, heads], that have what is asked for.
static bool are_expected(const struct attention *a, const struct tensor *t) {
	if (t->type != type_f32 || t->nb[0] != sizeof(float) || t->nb[1] < (size_t)t->ne[0] * sizeof(float) ||
	    t->ne[1] != a->rows || t->ne[3] != 1) {
		return false;
	}
	for (const struct attended *one = a->attended; one < a->attended + a->n; one++) {
		if (!within(a, one, t->ne[1], t->ne[0])) {
			return false;
		}
	}
	return true;
}

// add_weights adds what a layer's weights have of what is asked for.
static bool add_weights(struct attention *a, const struct tensor *t) {
	if (!are_expected(a, t)) {
		return false;
	}
	const char *whole = host(a, t);
	if (whole == NULL && is_copied_whole(a, t)) {
		whole = from_device(a, t, 0, span(t, t->ne[1], t->ne[2]));
		if (whole == NULL) {
			return false;
		}
	}
	for (const struct attended *one = a->attended; one < a->attended + a->n; one++) {
		for (int64_t head = 0; head < t->ne[2]; head++) {
			if (!add_head(a, t, one, head, whole)) {
				return false;
			}
		}
	}
	a->layers += (int32_t)t->ne[2];
	return true;
}

static bool is_weights(const struct tensor *t) {
	static const char name[] = "kq_soft_max-";
	return strncmp(t->name, name, sizeof name - 1) == 0;
}

// evaluated is called twice for each tensor: with ask, whether it is wanted, and then, if it
// is, when it is there.
static bool evaluated(struct tensor *t, bool ask, void *user) {
	struct attention *a = user;
	if (a->rows == 0 || a->layers < 0) {
		return !ask;
	}
	if (is_weights(t)) {
		if (ask) {
			return a->n > 0;
		}
		if (!add_weights(a, t)) {
			a->layers = -1;
		}
		return true;
	}
	const struct tensor *rows = a->is_placed ? NULL : indices(a, t);
	if (rows != NULL && !ask) {
		read_cells(a, rows);
	}
	return !ask || rows != NULL;
}

void *attention_callback(void) { return (void *)evaluated; }
