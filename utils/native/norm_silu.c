/* Batch norm in training mode followed by SiLU, forward and backward, on the CPU, channels last.
 *
 * Separately they read and write each map six times forward and eight times backward, fused three and five
 * times. The normalised map is never stored: the backward pass recomputes it from the input.
 *
 * Pixels are split into pieces of a fixed size, whose sums are added in order: the results do not depend on
 * the number of threads.
 */
#include "vectors.h"

#define PIECE 8192 /* floats: 32 KiB, which stay in the cache between two passes over them */

typedef struct {
    int64_t pixels, channels, threads; /* channels: a multiple of LANES; pixels: of all images */
    int64_t grad_step;                 /* floats between pixels of grad_y, which may be part of a wider map */
    float eps;
} norm_shape;

static int64_t pieces_of(const norm_shape *s, int64_t *pixels) {
    *pixels = most(PIECE / s->channels, 16);
    return (s->pixels + *pixels - 1) / *pixels;
}

/* Compute mean and sum of squared deviations of a piece, per channel. */
static void moments(const float *x, int64_t pixels, int64_t channels, float *mean, float *squares) {
    for (int64_t c = 0; c < channels; c += LANES) {
        vec sum[4] = {{0}}, square[4] = {{0}};
        int64_t p = 0;
        for (; p + 4 <= pixels; p += 4)
            for (int i = 0; i < 4; i++) sum[i] += at(x + (p + i) * channels + c);
        for (; p < pixels; p++) sum[0] += at(x + p * channels + c);
        vec middle = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / (float)pixels;
        for (p = 0; p + 4 <= pixels; p += 4)
            for (int i = 0; i < 4; i++) {
                vec off = at(x + (p + i) * channels + c) - middle;
                square[i] += off * off;
            }
        for (; p < pixels; p++) {
            vec off = at(x + p * channels + c) - middle;
            square[0] += off * off;
        }
        set(mean + c, middle);
        set(squares + c, (square[0] + square[1]) + (square[2] + square[3]));
    }
}

/* Combine the moments of all pieces (Chan, Golub and LeVeque, 1979) into mean and biased variance of a channel. */
static void join(const norm_shape *s, const float *parts, int64_t pieces, int64_t pixels, int64_t c, float *mean,
                 float *variance) {
    double middle = 0, squares = 0, seen = 0;
    for (int64_t i = 0; i < pieces; i++) {
        double count = least(pixels, s->pixels - i * pixels), all = seen + count;
        double off = parts[2 * i * s->channels + c] - middle;
        middle += off * count / all;
        squares += parts[(2 * i + 1) * s->channels + c] + off * off * seen * count / all;
        seen = all;
    }
    *mean = middle;
    *variance = squares / seen;
}

/* Compute y = silu(weight (x - mean) / sqrt(variance + eps) + bias), and store mean and biased variance of x.
 * Return 0, or 1 if memory ran out. */
int norm_silu_forward(const norm_shape *s, const float *x, const float *weight, const float *bias, float *y,
                      float *mean, float *variance) {
    int64_t pixels, pieces = pieces_of(s, &pixels), channels = s->channels;
    float *parts = malloc((2 * pieces + 1) * channels * sizeof(float));
    if (!parts) return 1;
    float *scale = parts + 2 * pieces * channels;
#pragma omp parallel num_threads(s->threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < pieces; i++)
            moments(x + i * pixels * channels, least(pixels, s->pixels - i * pixels), channels,
                    parts + 2 * i * channels, parts + (2 * i + 1) * channels);
#pragma omp for schedule(static)
        for (int64_t c = 0; c < channels; c++) {
            join(s, parts, pieces, pixels, c, mean + c, variance + c);
            scale[c] = weight[c] / sqrtf(variance[c] + s->eps);
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < pieces; i++) {
            int64_t first = i * pixels, end = least(first + pixels, s->pixels);
            for (int64_t c = 0; c < channels; c += LANES) {
                vec a = at(scale + c), b = at(bias + c), m = at(mean + c);
                for (int64_t p = first; p < end; p++) {
                    vec z = (at(x + p * channels + c) - m) * a + b;
                    set(y + p * channels + c, z * sigmoid(z));
                }
            }
        }
    }
    free(parts);
    return 0;
}

/* Return the gradient of SiLU's input from that of its output. */
static inline __attribute__((always_inline)) vec unsilu(vec grad, vec z) {
    vec s = sigmoid(z);
    return grad * s * (1.0f + z * (1.0f - s));
}

/* Compute the gradients of x, weight and bias from that of y. Return 0, or 1 if memory ran out. */
int norm_silu_backward(const norm_shape *s, const float *x, const float *weight, const float *bias,
                       const float *mean, const float *variance, const float *grad_y, float *grad_x,
                       float *grad_weight, float *grad_bias) {
    int64_t pixels, pieces = pieces_of(s, &pixels), channels = s->channels;
    float *parts = malloc((2 * pieces + 3) * channels * sizeof(float));
    if (!parts) return 1;
    float *scale = parts + 2 * pieces * channels, *slope = scale + channels, *level = slope + channels;
    for (int64_t c = 0; c < channels; c++) scale[c] = weight[c] / sqrtf(variance[c] + s->eps);
#pragma omp parallel num_threads(s->threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < pieces; i++) {
            int64_t first = i * pixels, end = least(first + pixels, s->pixels);
            for (int64_t c = 0; c < channels; c += LANES) {
                vec a = at(scale + c), b = at(bias + c), m = at(mean + c), sum = {0}, product = {0};
                for (int64_t p = first; p < end; p++) {
                    vec off = at(x + p * channels + c) - m;
                    vec grad = unsilu(at(grad_y + p * s->grad_step + c), off * a + b);
                    sum += grad;
                    product += grad * off;
                }
                set(parts + 2 * i * channels + c, sum);
                set(parts + (2 * i + 1) * channels + c, product);
            }
        }
#pragma omp for schedule(static)
        for (int64_t c = 0; c < channels; c++) {
            double sum = 0, product = 0, spread = 1 / sqrt((double)variance[c] + s->eps);
            for (int64_t i = 0; i < pieces; i++) {
                sum += parts[2 * i * channels + c];
                product += parts[(2 * i + 1) * channels + c];
            }
            grad_bias[c] = sum;
            grad_weight[c] = product * spread;
            /* grad_x = scale (grad - sum / n - (x - mean) spread^2 product / n) */
            slope[c] = -scale[c] * product * spread * spread / s->pixels;
            level[c] = -scale[c] * sum / s->pixels;
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < pieces; i++) {
            int64_t first = i * pixels, end = least(first + pixels, s->pixels);
            for (int64_t c = 0; c < channels; c += LANES) {
                vec a = at(scale + c), b = at(bias + c), m = at(mean + c), k = at(slope + c), l = at(level + c);
                for (int64_t p = first; p < end; p++) {
                    vec off = at(x + p * channels + c) - m;
                    vec grad = unsilu(at(grad_y + p * s->grad_step + c), off * a + b);
                    set(grad_x + p * channels + c, a * grad + (k * off + l));
                }
            }
        }
    }
    free(parts);
    return 0;
}
