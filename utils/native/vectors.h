/* Vectors of floats as a compiler extension, as wide as those of the processor: on wider ones GCC compares lane
 * by lane, and keeps sums in memory. */
#pragma once

#ifdef __AVX2__
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4 /* SSE, NEON */
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
typedef float loose __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));
typedef int32_t whole __attribute__((vector_size(LANES * sizeof(int32_t))));

static inline vec at(const float *from) { return *(const loose *)from; }
static inline void set(float *to, vec value) { *(loose *)to = value; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline vec pick(whole where, vec yes, vec no) { return (vec)((where & (whole)yes) | (~where & (whole)no)); }

/* 2^f on +-1/2, with a fused multiply-add for each coefficient. */
static inline __attribute__((always_inline)) vec power(vec f) {
    vec p = f * 1.54035304e-4f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    return p * f + 1.0f;
}

/* 1 / (1 + exp(-z)), within five units in the last place (measured), a third of one on average; NaN stays NaN. */
#ifdef __AVX512F__
static inline __attribute__((always_inline)) vec sigmoid(vec z) {
    const __m512 scale = _mm512_set1_ps(-1.44269502f), rest = _mm512_set1_ps(-1.92596303e-8f); /* -log2(e) */
    __m512 t = _mm512_min_ps(_mm512_set1_ps(127.0f), _mm512_max_ps(_mm512_set1_ps(-87.0f), (__m512)z));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(t, scale), _MM_FROUND_TO_NEAREST_INT);
    __m512 f = _mm512_fmadd_ps(t, rest, _mm512_fmsub_ps(t, scale, n));
    __m512 p = (__m512)power((vec)f);
    __m512 d = _mm512_add_ps(_mm512_scalef_ps(p, n), _mm512_set1_ps(1.0f));
    __m512 r = _mm512_rcp14_ps(d); /* a Newton step doubles its 14 bits; a division takes longer */
    return (vec)_mm512_mul_ps(r, _mm512_fnmadd_ps(d, r, _mm512_set1_ps(2.0f)));
}
#elif defined(__AVX2__) && defined(__FMA__)
static inline __attribute__((always_inline)) vec sigmoid(vec z) {
    const __m256 scale = _mm256_set1_ps(-1.44269502f), rest = _mm256_set1_ps(-1.92596303e-8f); /* -log2(e) */
    __m256 t = _mm256_min_ps(_mm256_set1_ps(87.0f), _mm256_max_ps(_mm256_set1_ps(-87.0f), (__m256)z));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(t, scale), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 f = _mm256_fmadd_ps(t, rest, _mm256_fmsub_ps(t, scale, n));
    __m256 p = (__m256)power((vec)f);
    __m256i whole_powers = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return 1.0f / (1.0f + (vec)_mm256_add_epi32((__m256i)p, whole_powers));
}
#else
static inline __attribute__((always_inline)) vec sigmoid(vec z) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    vec t = -z;
    t = pick(t > 87.0f, (vec){0} + 87.0f, t);
    t = pick(t < -87.0f, (vec){0} - 87.0f, t);
    vec shifted = t * 1.44269504f + magic;
    vec n = shifted - magic;
    vec r = t - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = 1.9875691500e-4f * r + 1.3981999507e-3f; /* Cephes' polynomial for exp on +-ln(2)/2 */
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    whole powers = ((whole)shifted - (whole)((vec){0} + magic) + 127) << 23;
    return 1.0f / (1.0f + p * (vec)powers);
}
#endif
