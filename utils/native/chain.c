/* Pairs of depth-wise 1-D convolutions, along the rows and then the columns, forward and backward, on the CPU.
 *
 * Run separately, each convolution reads and writes the whole map, which takes longer than its few
 * multiplications. Here as many channels of an image as a vector has lanes go through the whole chain while
 * their planes are in the cache; steps that need a single row use buffers of one row. Row buffers have margins of zeros, so
 * that taps along a row need no border check.
 *
 * The order of every sum depends only on the shapes, not on the number of threads or the thread that
 * processes an image. Results are therefore reproducible to the bit.
 */
#include <pthread.h>

#include "threads.h"
#include "vectors.h"

/* Stages alternate: along the rows, along the columns, ... */
typedef struct {
    int64_t taps; /* odd */
    int64_t dilation;
    const float *weight; /* (C, taps) */
    const float *bias;   /* (C) */
    float *grad_weight;  /* backward only; as above */
    float *grad_bias;
} stage;

typedef struct {
    int64_t images, channels, height, width;
    int64_t image_step, channel_step, pixel_step; /* of x, y and their gradients, in floats */
    int64_t pairs, threads;
} shape;

typedef struct {
    int64_t margin, row, plane; /* in vectors; a plane has no margins */
    int64_t blocks, weights;    /* blocks of channels; weights and biases of all stages of a block */
} layout;

static layout lay_out(const shape *s, const stage *stages) {
    layout l = {0, 0, s->height * s->width, (s->channels + LANES - 1) / LANES, 0};
    for (int64_t i = 0; i < 2 * s->pairs; i++) {
        if (i % 2 == 0) l.margin = most(l.margin, stages[i].dilation * (stages[i].taps / 2));
        l.weights += stages[i].taps + 1;
    }
    l.row = s->width + 2 * l.margin;
    return l;
}

static pthread_key_t scratch_key; /* frees a thread's memory when the thread ends */
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void make_scratch_key(void) { pthread_key_create(&scratch_key, free); }

/* Scratch memory of a thread, kept between calls: new pages would take longer than the arithmetic. */
static vec *scratch(int64_t vectors) {
    static _Thread_local vec *memory;
    static _Thread_local int64_t size;
    if (vectors > size) {
        free(memory);
        void *fresh = NULL;
        size = posix_memalign(&fresh, 64, vectors * sizeof(vec)) ? 0 : vectors;
        memory = size ? fresh : NULL;
        pthread_once(&scratch_once, make_scratch_key);
        pthread_setspecific(scratch_key, memory);
    }
    return memory;
}

static int64_t lanes_of(const shape *s, int64_t block) { return least(LANES, s->channels - block * LANES); }

/* Load a row of up to LANES channels from the tensor; missing lanes are zero. */
static void take(vec *to, const float *tensor, int64_t y, const shape *s, int64_t lanes) {
    const float *pixel = tensor + y * s->width * s->pixel_step;
    if (s->channel_step == 1 && lanes == LANES) {
        for (int64_t x = 0; x < s->width; x++) to[x] = at(pixel + x * s->pixel_step);
        return;
    }
    if (lanes < LANES) memset(to, 0, s->width * sizeof(vec));
    float *flat = (float *)to;
    for (int64_t c = 0; c < lanes; c++)
        for (int64_t x = 0; x < s->width; x++) flat[x * LANES + c] = pixel[x * s->pixel_step + c * s->channel_step];
}

/* Store a row into the tensor. */
static void put(float *tensor, const vec *from, int64_t y, const shape *s, int64_t lanes) {
    float *pixel = tensor + y * s->width * s->pixel_step;
    if (s->channel_step == 1 && lanes == LANES) {
        for (int64_t x = 0; x < s->width; x++) set(pixel + x * s->pixel_step, from[x]);
        return;
    }
    const float *flat = (const float *)from;
    for (int64_t c = 0; c < lanes; c++)
        for (int64_t x = 0; x < s->width; x++) pixel[x * s->pixel_step + c * s->channel_step] = flat[x * LANES + c];
}

/* Pack the weights of a block as vectors over its channels: for each stage the bias, then the taps. */
static void pack(vec *to, const shape *s, const stage *stages, int64_t block, int flipped) {
    int64_t first = block * LANES;
    for (int64_t i = 0; i < 2 * s->pairs; i++) {
        int64_t taps = stages[i].taps;
        memset(to, 0, (taps + 1) * sizeof(vec));
        for (int64_t lane = 0; lane < lanes_of(s, block); lane++) {
            const float *weight = stages[i].weight + (first + lane) * taps;
            ((float *)to)[lane] = flipped ? 0 : stages[i].bias[first + lane];
            for (int64_t k = 0; k < taps; k++)
                ((float *)(to + 1 + k))[lane] = weight[flipped ? taps - 1 - k : k];
        }
        to += taps + 1;
    }
}

/* For `count` neighbouring pixels: to[i] = bias + sum over k of weight[k] from[i + k step]. */
static inline __attribute__((always_inline)) void pixels(
    const int count, vec *to, const vec *from, int64_t step, const vec *weight, int64_t taps, vec bias) {
    vec sum[8];
    for (int i = 0; i < count; i++) sum[i] = bias;
    for (int64_t k = 0; k < taps; k++, from += step) {
        vec w = weight[k];
#pragma GCC unroll 8
        for (int i = 0; i < count; i++) sum[i] += w * from[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) to[i] = sum[i];
}

/* Convolve a row with margins. Taps that would read only the margin are left out. */
static void along_row(vec *to, const vec *from, int64_t width, const stage *g, const vec *packed) {
    int64_t d = g->dilation, half = g->taps / 2;
    for (int64_t x = 0; x < width;) {
        int64_t count = width - x >= 8 ? 8 : width - x >= 4 ? 4 : 1;
        int64_t first = most(0, half - (x + count - 1) / d);
        int64_t taps = least(g->taps, half + (width - 1 - x) / d + 1) - first;
        const vec *start = from + x + (first - half) * d, *weight = packed + 1 + first;
        if (count == 8) pixels(8, to + x, start, d, weight, taps, packed[0]);
        else if (count == 4) pixels(4, to + x, start, d, weight, taps, packed[0]);
        else pixels(1, to + x, start, d, weight, taps, packed[0]);
        x += count;
    }
}

typedef struct {
    int64_t first, end, from; /* taps [first, end) are inside; `from`: offset of the first one from row y */
} window;

static window column_window(int64_t y, const shape *s, const stage *g) {
    int64_t d = g->dilation, half = g->taps / 2, first = most(0, half - y / d);
    return (window){first, least(g->taps, half + (s->height - 1 - y) / d + 1), (first - half) * d * s->width};
}

/* Convolve the columns of a plane: row y of the result. */
static void along_column(vec *to, const vec *plane, int64_t y, const shape *s, const stage *g, const vec *packed) {
    window w = column_window(y, s, g);
    int64_t step = g->dilation * s->width, taps = w.end - w.first, x = 0;
    const vec *from = plane + y * s->width + w.from, *weight = packed + 1 + w.first;
    for (; x + 8 <= s->width; x += 8) pixels(8, to + x, from + x, step, weight, taps, packed[0]);
    for (; x + 4 <= s->width; x += 4) pixels(4, to + x, from + x, step, weight, taps, packed[0]);
    for (; x < s->width; x++) pixels(1, to + x, from + x, step, weight, taps, packed[0]);
}

/* sum[k] += sum over the pixels of a row of grad[x] from[x + k step], for `taps` neighbouring taps.
 * With few taps several pixels are summed separately, since each addition waits for the one before. */
static inline __attribute__((always_inline)) void few_products(
    const int taps, const int phases, vec *sum, const vec *grad, const vec *from, int64_t step, int64_t width) {
    vec part[8];
    for (int i = 0; i < taps * phases; i++) part[i] = (vec){0};
    int64_t x = 0;
    for (; x + phases <= width; x += phases) {
#pragma GCC unroll 8
        for (int p = 0; p < phases; p++) {
            vec g = grad[x + p];
#pragma GCC unroll 8
            for (int k = 0; k < taps; k++) part[p * taps + k] += g * from[x + p + k * step];
        }
    }
    for (; x < width; x++)
        for (int k = 0; k < taps; k++) part[k] += grad[x] * from[x + k * step];
    for (int k = 0; k < taps; k++) {
        vec whole = part[k];
        for (int p = 1; p < phases; p++) whole += part[p * taps + k];
        sum[k] += whole;
    }
}

static void products(vec *sum, const vec *grad, const vec *from, int64_t step, int64_t width, int64_t taps) {
    while (taps > 0) {
        int64_t done = taps >= 8 ? 8 : taps >= 4 ? 4 : taps >= 2 ? 2 : 1;
        if (done == 8) few_products(8, 1, sum, grad, from, step, width);
        else if (done == 4) few_products(4, 2, sum, grad, from, step, width);
        else if (done == 2) few_products(2, 4, sum, grad, from, step, width);
        else few_products(1, 8, sum, grad, from, step, width);
        taps -= done, sum += done, from += done * step;
    }
}

/* Add a row's contribution to the gradients of a stage's bias, sums[0], and of its taps, which follow it. */
static void weigh_row(vec *sums, const vec *grad, const vec *from, int64_t width, const stage *g) {
    int64_t d = g->dilation, half = g->taps / 2, first = most(0, half - (width - 1) / d);
    vec total = {0};
    for (int64_t x = 0; x < width; x++) total += grad[x];
    sums[0] += total;
    products(sums + 1 + first, grad, from + (first - half) * d, d, width, g->taps - 2 * first);
}

static void weigh_column(vec *sums, const vec *grad, const vec *plane, int64_t y, const shape *s, const stage *g) {
    window w = column_window(y, s, g);
    vec total = {0};
    for (int64_t x = 0; x < s->width; x++) total += grad[x];
    sums[0] += total;
    const vec *from = plane + y * s->width + w.from;
    products(sums + 1 + w.first, grad, from, g->dilation * s->width, s->width, w.end - w.first);
}

/* Clear a thread's row buffers, each with margins of zeros; the pointers are to the first pixel. */
static void clear_rows(vec *memory, vec **rows, int64_t count, const layout *l) {
    memset(memory, 0, count * l->row * sizeof(vec));
    for (int64_t i = 0; i < count; i++) rows[i] = memory + i * l->row + l->margin;
}

static int64_t place(const shape *s, int64_t image, int64_t block) {
    return image * s->image_step + block * LANES * s->channel_step;
}

/* Forward pass of a block of channels of an image. `plane` has room for one plane per pair. */
static void forward_block(const shape *s, const stage *g, const vec *packed, int64_t lanes, const float *x, float *y,
                          vec *plane, int64_t size, vec *row) {
    for (int64_t r = 0; r < s->height; r++) {
        take(row, x, r, s, lanes);
        along_row(plane + r * s->width, row, s->width, g, packed);
    }
    for (int64_t pair = 0; pair < s->pairs; pair++, g += 2) {
        const vec *down = packed + g[0].taps + 1, *next = down + g[1].taps + 1;
        for (int64_t r = 0; r < s->height; r++) {
            along_column(row, plane, r, s, g + 1, down);
            if (pair + 1 == s->pairs) put(y, row, r, s, lanes);
            else along_row(plane + size + r * s->width, row, s->width, g + 2, next);
        }
        plane += size, packed = next;
    }
}

/* Backward pass of a block of channels of an image. `plane` has room for two planes per pair: the input of each column
 * stage and the gradient of its output. `sums` gets the gradients of biases and taps, in the order of `pack`. */
static void backward_block(const shape *s, const stage *g, const vec *packed, const vec *flipped, int64_t lanes,
                           const float *x, const float *grad_y, float *grad_x, vec *plane, int64_t size, vec **row,
                           vec *sums) {
    const vec *grads[2], *starts[2];
    int64_t offset[4] = {0};
    for (int64_t i = 1; i < 2 * s->pairs; i++) offset[i] = offset[i - 1] + g[i - 1].taps + 1;
    for (int64_t i = 0; i < s->pairs; i++) starts[i] = plane + i * size, grads[i] = plane + (s->pairs + i) * size;
    for (int64_t pair = 0; pair < s->pairs; pair++)
        for (int64_t r = 0; r < s->height; r++) {
            if (pair == 0) take(row[0], x, r, s, lanes);
            else along_column(row[0], starts[pair - 1], r, s, g + 2 * pair - 1, packed + offset[2 * pair - 1]);
            along_row((vec *)starts[pair] + r * s->width, row[0], s->width, g + 2 * pair, packed + offset[2 * pair]);
        }
    for (int64_t r = 0; r < s->height; r++) take((vec *)grads[s->pairs - 1] + r * s->width, grad_y, r, s, lanes);
    for (int64_t pair = s->pairs - 1; pair >= 0; pair--) {
        const stage *across = g + 2 * pair, *down = across + 1;
        int64_t a = offset[2 * pair], b = offset[2 * pair + 1];
        for (int64_t r = 0; r < s->height; r++) {
            weigh_column(sums + b, grads[pair] + r * s->width, starts[pair], r, s, down);
            along_column(row[1], grads[pair], r, s, down, flipped + b);
            if (pair == 0) take(row[0], x, r, s, lanes);
            else along_column(row[0], starts[pair - 1], r, s, across - 1, packed + offset[2 * pair - 1]);
            weigh_row(sums + a, row[1], row[0], s->width, across);
            if (pair > 0) {
                along_row((vec *)grads[pair - 1] + r * s->width, row[1], s->width, across, flipped + a);
            } else {
                along_row(row[2], row[1], s->width, across, flipped + a);
                put(grad_x, row[2], r, s, lanes);
            }
        }
    }
}

/* Compute y, the chain applied to x. Return 0, or 1 if memory ran out. */
int chain_forward(const shape *s, const stage *stages, const float *x, float *y) {
    layout l = lay_out(s, stages);
    void *room = NULL;
    if (posix_memalign(&room, 64, l.blocks * l.weights * sizeof(vec))) return 1;
    vec *weights = room;
    int failed = 0, arrived = 0;
#pragma omp parallel num_threads(s->threads) reduction(| : failed)
    {
        vec *plane = scratch(s->pairs * l.plane + l.row), *row = NULL;
        failed = plane == NULL;
        if (!failed) clear_rows(plane + s->pairs * l.plane, &row, 1, &l);
#pragma omp for schedule(static) nowait
        for (int64_t block = 0; block < l.blocks; block++) pack(weights + block * l.weights, s, stages, block, 0);
        meet(&arrived, threads_here());
#pragma omp for schedule(static) nowait
        for (int64_t task = 0; task < s->images * l.blocks; task++) {
            if (failed) continue;
            int64_t image = task / l.blocks, block = task % l.blocks, at = place(s, image, block);
            const vec *packed = weights + block * l.weights;
            forward_block(s, stages, packed, lanes_of(s, block), x + at, y + at, plane, l.plane, row);
        }
    }
    free(room);
    return failed;
}

/* Add up a block's gradients over the images, in their order, and write them into the tensors. */
static void sum_up(const shape *s, const stage *stages, int64_t block, vec *sums, const layout *l) {
    vec *total = sums + block * l->weights;
    for (int64_t image = 1; image < s->images; image++)
        for (int64_t i = 0; i < l->weights; i++) total[i] += total[image * l->blocks * l->weights + i];
    for (int64_t i = 0; i < 2 * s->pairs; i++) {
        int64_t taps = stages[i].taps;
        for (int64_t lane = 0; lane < lanes_of(s, block); lane++) {
            int64_t channel = block * LANES + lane;
            stages[i].grad_bias[channel] = ((float *)total)[lane];
            for (int64_t k = 0; k < taps; k++)
                stages[i].grad_weight[channel * taps + k] = ((float *)(total + 1 + k))[lane];
        }
        total += taps + 1;
    }
}

/* Compute the gradients of x, weights and biases from that of y; the maps between the stages are recomputed.
 * Return 0, or 1 if memory ran out. */
int chain_backward(const shape *s, const stage *stages, const float *x, const float *grad_y, float *grad_x) {
    layout l = lay_out(s, stages);
    int64_t packs = l.blocks * l.weights, tasks = s->images * l.blocks;
    void *room = NULL;
    if (posix_memalign(&room, 64, (2 * packs + tasks * l.weights) * sizeof(vec))) return 1;
    vec *weights = room, *flipped = weights + packs, *sums = flipped + packs;
    int failed = 0, arrived = 0;
#pragma omp parallel num_threads(s->threads) reduction(| : failed)
    {
        vec *plane = scratch(2 * s->pairs * l.plane + 3 * l.row), *rows[3];
        failed = plane == NULL;
        if (!failed) clear_rows(plane + 2 * s->pairs * l.plane, rows, 3, &l);
#pragma omp for schedule(static) nowait
        for (int64_t block = 0; block < l.blocks; block++) {
            pack(weights + block * l.weights, s, stages, block, 0);
            pack(flipped + block * l.weights, s, stages, block, 1);
        }
        meet(&arrived, threads_here());
#pragma omp for schedule(static) nowait
        for (int64_t task = 0; task < tasks; task++) {
            if (failed) continue;
            int64_t image = task / l.blocks, block = task % l.blocks, at = place(s, image, block);
            vec *sum = sums + task * l.weights;
            memset(sum, 0, l.weights * sizeof(vec));
            backward_block(s, stages, weights + block * l.weights, flipped + block * l.weights, lanes_of(s, block),
                           x + at, grad_y + at, grad_x + at, plane, l.plane, rows, sum);
        }
        meet(&arrived, 2 * threads_here());
#pragma omp for schedule(static) nowait
        for (int64_t block = 0; block < l.blocks; block++) sum_up(s, stages, block, sums, &l);
    }
    free(room);
    return failed;
}
