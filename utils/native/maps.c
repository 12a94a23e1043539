/* Images as floats, concatenation of maps, SiLU, and decoding of logits into boxes, on all threads. PyTorch
 * concatenates channels on one thread, and decodes with a dozen passes over the largest tensor of the model. */
#include "vectors.h"

#define PIXELS 512 /* per task of a thread */

/* Divide RGB images (images, 3, pixels) by 255: (images, pixels, 3). */
void unit_images(const uint8_t *from, float *to, int64_t images, int64_t pixels, int64_t threads) {
    float unit[256];
    for (int i = 0; i < 256; i++) unit[i] = i / 255.0f;
    int64_t parts = (pixels + PIXELS - 1) / PIXELS;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t task = 0; task < images * parts; task++) {
        int64_t first = task % parts * PIXELS, end = least(first + PIXELS, pixels);
        const uint8_t *red = from + task / parts * 3 * pixels, *green = red + pixels, *blue = green + pixels;
        float *target = to + task / parts * 3 * pixels;
        for (int64_t p = first; p < end; p++) {
            target[3 * p] = unit[red[p]];
            target[3 * p + 1] = unit[green[p]];
            target[3 * p + 2] = unit[blue[p]];
        }
    }
}

/* Concatenate maps along the channels: (pixels, channels[i]) each -> (pixels, sum of channels). */
void join_maps(int64_t maps, int64_t pixels, const int64_t *channels, const float *const *from, float *to,
               int64_t threads) {
    int64_t all = 0;
    for (int64_t i = 0; i < maps; i++) all += channels[i];
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t start = 0; start < pixels; start += PIXELS) {
        int64_t end = least(start + PIXELS, pixels), first = 0;
        for (int64_t i = 0; i < maps; first += channels[i++]) {
            int64_t width = channels[i];
            for (int64_t p = start; p < end; p++) {
                const float *source = from[i] + p * width;
                float *target = to + p * all + first;
                int64_t c = 0;
                for (; c + LANES <= width; c += LANES) set(target + c, at(source + c));
                for (; c < width; c++) target[c] = source[c];
            }
        }
    }
}

/* Apply SiLU in place. */
void silu(float *x, int64_t numbers, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < numbers / LANES; i++) {
        vec z = at(x + i * LANES);
        set(x + i * LANES, z * sigmoid(z));
    }
    float rest[LANES] = {0};
    int64_t done = numbers / LANES * LANES;
    memcpy(rest, x + done, (numbers - done) * sizeof(float));
    set(rest, at(rest) * sigmoid(at(rest)));
    memcpy(x + done, rest, (numbers - done) * sizeof(float));
}

typedef struct {
    int64_t images, height, width, anchors, numbers; /* numbers per anchor: 5 + classes + linear */
    int64_t linear;                                  /* numbers that stay as they are */
    int64_t first_row, rows;                            /* first row of the level, and all rows of an image */
    int64_t threads;
    float stride;
    const float *sizes; /* of the anchors, (anchors, 2) in pixels */
} level;

/* Decode one anchor: all numbers by sigmoid, the first four into x, y, width and height in pixels. */
static inline void decode_anchor(float *to, const float *from, const level *l, int64_t x, int64_t y, const float *size) {
    int64_t n = l->numbers, c = 0;
    for (; c + LANES <= n; c += LANES) set(to + c, sigmoid(at(from + c)));
    if (c < n) {
        float rest[LANES] = {0};
        memcpy(rest, from + c, (n - c) * sizeof(float));
        set(rest, sigmoid(at(rest)));
        memcpy(to + c, rest, (n - c) * sizeof(float));
    }
    float w = to[2] * 2, h = to[3] * 2;
    to[0] = (to[0] * 2 + (x - 0.5f)) * l->stride;
    to[1] = (to[1] * 2 + (y - 0.5f)) * l->stride;
    to[2] = w * w * size[0];
    to[3] = h * h * size[1];
    memcpy(to + n - l->linear, from + n - l->linear, l->linear * sizeof(float));
}

/* Decode logits (images, height, width, anchors * numbers) into (images, rows, numbers), ordered by anchor, y, x. */
void decode_level(const level *l, const float *logits, float *boxes) {
#pragma omp parallel for schedule(static) num_threads(l->threads)
    for (int64_t line = 0; line < l->images * l->height; line++) {
        int64_t image = line / l->height, y = line % l->height;
        for (int64_t x = 0; x < l->width; x++)
            for (int64_t a = 0; a < l->anchors; a++) {
                const float *from = logits + ((line * l->width + x) * l->anchors + a) * l->numbers;
                int64_t row = image * l->rows + l->first_row + (a * l->height + y) * l->width + x;
                decode_anchor(boxes + row * l->numbers, from, l, x, y, l->sizes + 2 * a);
            }
    }
}
