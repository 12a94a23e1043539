/* Batch norm in training mode followed by SiLU, forward and backward, on the CPU, channels last.
 *
 * Separately they read and write each map six times forward and eight times backward, fused three and six
 * times. The normalised map is never stored: the backward pass recomputes it from the input, and keeps the
 * gradient of SiLU's input where that of x is stored next.
 *
 * Pixels are split into pieces of a fixed size, whose sums are added in order: the results do not depend on
 * the number of threads.
 */
#include "threads.h"
#include "vectors.h"

#define PIECE 8192            /* floats: 32 KiB, which stay in the cache between two passes over them */
#define LINE 16               /* channels whose sums are in registers: a line of the cache */
#define GROUP (LINE / LANES)  /* and the vectors that hold them */

typedef struct {
    int64_t pixels, channels, threads; /* channels: a multiple of LINE; pixels: of all images */
    int64_t grad_step;                 /* floats between pixels of grad_y, which may be part of a wider map */
    float eps;
} norm_shape;

static int64_t pieces_of(const norm_shape *s, int64_t *pixels) {
    *pixels = most(PIECE / s->channels, 16);
    return (s->pixels + *pixels - 1) / *pixels;
}

/* Compute mean and sum of squared deviations of a piece, per channel. */
static void moments(const float *x, int64_t pixels, int64_t channels, float *mean, float *squares) {
    for (int64_t c = 0; c < channels; c += LINE) {
        vec sum[4][GROUP] = {0}, square[4][GROUP] = {0}, middle[GROUP];
        int64_t p = 0;
        for (; p + 4 <= pixels; p += 4)
            for (int i = 0; i < 4; i++)
                for (int g = 0; g < GROUP; g++) sum[i][g] += at(x + (p + i) * channels + c + g * LANES);
        for (; p < pixels; p++)
            for (int g = 0; g < GROUP; g++) sum[0][g] += at(x + p * channels + c + g * LANES);
        for (int g = 0; g < GROUP; g++)
            middle[g] = ((sum[0][g] + sum[1][g]) + (sum[2][g] + sum[3][g])) / (float)pixels;
        for (p = 0; p + 4 <= pixels; p += 4)
            for (int i = 0; i < 4; i++)
                for (int g = 0; g < GROUP; g++) {
                    vec off = at(x + (p + i) * channels + c + g * LANES) - middle[g];
                    square[i][g] += off * off;
                }
        for (; p < pixels; p++)
            for (int g = 0; g < GROUP; g++) {
                vec off = at(x + p * channels + c + g * LANES) - middle[g];
                square[0][g] += off * off;
            }
        for (int g = 0; g < GROUP; g++) {
            set(mean + c + g * LANES, middle[g]);
            set(squares + c + g * LANES, (square[0][g] + square[1][g]) + (square[2][g] + square[3][g]));
        }
    }
}

/* Combine the moments of all pieces (Chan, Golub and LeVeque, 1979) into mean and biased variance of LINE channels. */
static void join(const norm_shape *s, const float *parts, int64_t pieces, int64_t pixels, float *mean,
                 float *variance) {
    double middle[LINE] = {0}, squares[LINE] = {0}, seen = 0;
    for (int64_t i = 0; i < pieces; i++) {
        const float *means = parts + 2 * i * s->channels, *more = means + s->channels;
        double count = least(pixels, s->pixels - i * pixels), all = seen + count;
        for (int k = 0; k < LINE; k++) {
            double off = means[k] - middle[k];
            middle[k] += off * count / all;
            squares[k] += more[k] + off * off * seen * count / all;
        }
        seen = all;
    }
    for (int k = 0; k < LINE; k++) {
        mean[k] = middle[k];
        variance[k] = squares[k] / seen;
    }
}

/* Compute y = silu(weight (x - mean) / sqrt(variance + eps) + bias), and store mean and biased variance of x.
 * Return 0, or 1 if memory ran out. */
int norm_silu_forward(const norm_shape *s, const float *x, const float *weight, const float *bias, float *y,
                      float *mean, float *variance) {
    int64_t pixels, pieces = pieces_of(s, &pixels), channels = s->channels;
    float *parts = malloc((2 * pieces + 1) * channels * sizeof(float));
    if (!parts) return 1;
    float *scale = parts + 2 * pieces * channels;
    int arrived = 0;
#pragma omp parallel num_threads(s->threads)
    {
        int threads = threads_here();
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < pieces; i++)
            moments(x + i * pixels * channels, least(pixels, s->pixels - i * pixels), channels,
                    parts + 2 * i * channels, parts + (2 * i + 1) * channels);
        meet(&arrived, threads);
#pragma omp for schedule(static) nowait
        for (int64_t c = 0; c < channels; c += LINE) {
            join(s, parts + c, pieces, pixels, mean + c, variance + c);
            for (int k = 0; k < LINE; k++) scale[c + k] = weight[c + k] / sqrtf(variance[c + k] + s->eps);
        }
        meet(&arrived, 2 * threads);
#pragma omp for schedule(static) nowait
        for (int64_t p = 0; p < s->pixels; p++)
            for (int64_t c = 0; c < channels; c += LANES) {
                vec z = (at(x + p * channels + c) - at(mean + c)) * at(scale + c) + at(bias + c);
                set(y + p * channels + c, z * sigmoid(z));
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

/* Compute the gradient of SiLU's input for a piece, its sum, and the sum of its products with x - mean, per channel. */
static void gradients(const norm_shape *s, const float *x, const float *grad_y, int64_t pixels, const float *scale,
                      const float *bias, const float *mean, float *grad_x, float *sums, float *products) {
    int64_t channels = s->channels;
    for (int64_t c = 0; c < channels; c += LINE) {
        vec a[GROUP], b[GROUP], m[GROUP], sum[GROUP] = {0}, product[GROUP] = {0};
        for (int g = 0; g < GROUP; g++) {
            a[g] = at(scale + c + g * LANES);
            b[g] = at(bias + c + g * LANES);
            m[g] = at(mean + c + g * LANES);
        }
        for (int64_t p = 0; p < pixels; p++)
            for (int g = 0; g < GROUP; g++) {
                int64_t d = c + g * LANES;
                vec off = at(x + p * channels + d) - m[g];
                vec grad = unsilu(at(grad_y + p * s->grad_step + d), off * a[g] + b[g]);
                set(grad_x + p * channels + d, grad);
                sum[g] += grad;
                product[g] += grad * off;
            }
        for (int g = 0; g < GROUP; g++) {
            set(sums + c + g * LANES, sum[g]);
            set(products + c + g * LANES, product[g]);
        }
    }
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
    int arrived = 0;
#pragma omp parallel num_threads(s->threads)
    {
        int threads = threads_here();
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < pieces; i++)
            gradients(s, x + i * pixels * channels, grad_y + i * pixels * s->grad_step,
                      least(pixels, s->pixels - i * pixels), scale, bias, mean, grad_x + i * pixels * channels,
                      parts + 2 * i * channels, parts + (2 * i + 1) * channels);
        meet(&arrived, threads);
#pragma omp for schedule(static) nowait
        for (int64_t c = 0; c < channels; c += LINE) {
            double sum[LINE] = {0}, product[LINE] = {0};
            for (int64_t i = 0; i < pieces; i++)
                for (int k = 0; k < LINE; k++) {
                    sum[k] += parts[2 * i * channels + c + k];
                    product[k] += parts[(2 * i + 1) * channels + c + k];
                }
            for (int k = 0; k < LINE; k++) {
                double spread = 1 / sqrt((double)variance[c + k] + s->eps);
                grad_bias[c + k] = sum[k];
                grad_weight[c + k] = product[k] * spread;
                /* grad_x = scale (grad - sum / n - (x - mean) spread^2 product / n) */
                slope[c + k] = -scale[c + k] * product[k] * spread * spread / s->pixels;
                level[c + k] = -scale[c + k] * sum[k] / s->pixels;
            }
        }
        meet(&arrived, 2 * threads);
#pragma omp for schedule(static) nowait
        for (int64_t p = 0; p < s->pixels; p++)
            for (int64_t c = 0; c < channels; c += LANES) {
                vec off = at(x + p * channels + c) - at(mean + c), grad = at(grad_x + p * channels + c);
                set(grad_x + p * channels + c, at(scale + c) * grad + (at(slope + c) * off + at(level + c)));
            }
    }
    free(parts);
    return 0;
}
