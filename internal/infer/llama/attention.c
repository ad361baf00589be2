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

	int32_t pairs;
	const int32_t *pair_rows, *pair_cells;
	double *sums;
	int32_t rows;
	int64_t *cells;

	bool placed; // cells are known
	int32_t layers;
	float *row; // scratch, of a device's tensor
	int64_t row_size;
};

struct attention *attention_new(void *op_desc, void *is_host, void *get) {
	struct attention *a = calloc(1, sizeof *a);
	if (a != NULL) {
		a->op_desc = (op_desc_function *)op_desc;
		a->is_host = (is_host_function *)is_host;
		a->get = (get_function *)get;
	}
	return a;
}

void attention_free(struct attention *a) {
	free(a->row);
	free(a);
}

void attention_want(struct attention *a, int32_t n, const int32_t *pair_rows, const int32_t *pair_cells, double *sums,
                    int32_t rows, int64_t *cells) {
	a->pairs = n;
	a->pair_rows = pair_rows;
	a->pair_cells = pair_cells;
	a->sums = sums;
	a->rows = rows;
	a->cells = cells;
	a->placed = false;
	a->layers = 0;
}

int32_t attention_layers(const struct attention *a) { return a->layers; }

bool attention_placed(const struct attention *a) { return a->placed; }

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
	const size_t size = (size_t)a->rows * sizeof *a->cells;
	const void *data = host(a, rows);
	if (data != NULL) {
		memcpy(a->cells, data, size);
	} else {
		a->get(rows, a->cells, 0, size);
	}
	a->placed = true;
}

// device_row copies a row of weights from a device.
static const float *device_row(struct attention *a, const struct tensor *t, size_t offset) {
	if (a->row_size < t->ne[0]) {
		float *row = realloc(a->row, (size_t)t->ne[0] * sizeof *row);
		if (row == NULL) {
			return NULL;
		}
		a->row = row;
		a->row_size = t->ne[0];
	}
	a->get(t, a->row, offset, (size_t)t->ne[0] * sizeof *a->row);
	return a->row;
}

// add_weights adds what a layer's weights, of [cells, rows, heads], have for the pairs.
static bool add_weights(struct attention *a, const struct tensor *t) {
	if (t->type != type_f32 || t->nb[0] != sizeof(float) || t->ne[1] != a->rows || t->ne[3] != 1) {
		return false;
	}
	const char *data = host(a, t);
	for (int64_t head = 0; head < t->ne[2]; head++) {
		const float *weights = NULL;
		for (int32_t i = 0; i < a->pairs; i++) {
			if (a->pair_cells[i] < 0 || a->pair_cells[i] >= t->ne[0] || a->pair_rows[i] < 0 || a->pair_rows[i] >= a->rows) {
				return false;
			}
			if (weights == NULL || a->pair_rows[i] != a->pair_rows[i - 1]) {
				const size_t offset = (size_t)head * t->nb[2] + (size_t)a->pair_rows[i] * t->nb[1];
				weights = data != NULL ? (const float *)(data + offset) : device_row(a, t, offset);
				if (weights == NULL) {
					return false;
				}
			}
			a->sums[i] += weights[a->pair_cells[i]];
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
			return a->pairs > 0;
		}
		if (!add_weights(a, t)) {
			a->layers = -1;
		}
		return true;
	}
	const struct tensor *rows = a->placed ? NULL : indices(a, t);
	if (rows != NULL && !ask) {
		read_cells(a, rows);
	}
	return !ask || rows != NULL;
}

void *attention_callback(void) { return (void *)evaluated; }
