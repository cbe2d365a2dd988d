/* What a decoding step does between its matrix products, on a CPU: native.py compiles and checks it.

   NUMBER is float, or uint16_t for bfloat16 (the upper half of a float). All arithmetic is in float; a result is rounded
   once, when it is stored. Loops are written so that compilers vectorise them; for that the model's head size DIM and the
   number of QUERIES that are answered together (they share a KV head) are constants. With OpenMP `threads` of them share
   the rows, which are computed alike whoever has them; functions of a few microseconds have one. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#define THREAD omp_get_thread_num()
#else
#define THREAD 0
#endif

#ifdef BFLOAT16
typedef uint16_t NUMBER;
static inline float get(NUMBER x) { uint32_t bits = (uint32_t)x << 16; float y; memcpy(&y, &bits, 4); return y; }
static inline NUMBER put(float y) { /* to nearest, ties to even; a NaN stays one */
    uint32_t bits; memcpy(&bits, &y, 4);
    return y != y ? 0x7FC0 : (NUMBER)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}
#else
typedef float NUMBER;
static inline float get(NUMBER x) { return x; }
static inline NUMBER put(float y) { return y; }
#endif

#define INLINE static inline __attribute__((always_inline))

/* exp(x), relative error below 2e-7; 0 below -87, so that sums of it do not meet denormal numbers. NaN stays NaN. */
INLINE float exponential(float x) {
    float inside = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = nearbyintf(inside * 1.44269504f);
    float r = inside - n * 0.693359375f + n * 2.12194440e-4f; /* n log 2 in two parts: the first one is exact */
    float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.66666667e-1f + r * (4.16666667e-2f + r * (8.33333333e-3f + r * 1.38888889e-3f)))));
    int32_t bits = ((int32_t)n + 127) << 23;
    float power; memcpy(&power, &bits, 4);
    return x < -87.0f ? 0.0f : p * power;
}

/* out = x / sqrt(mean(x^2) + eps) * weight; x, out [rows, width] (arXiv 1910.07467, eq. 4). */
void rms_norm(int64_t rows, int64_t width, const NUMBER *x, const NUMBER *weight, float eps, NUMBER *out) {
    for (int64_t row = 0; row < rows; row++, x += width, out += width) {
        float sum = 0.0f;
        for (int64_t i = 0; i < width; i++) sum += get(x[i]) * get(x[i]);
        float scale = 1.0f / sqrtf(sum / (float)width + eps);
        for (int64_t i = 0; i < width; i++) out[i] = put(get(x[i]) * scale * get(weight[i]));
    }
}

/* Rotary positions: x [rows, heads, 2 half], rows `stride` apart; cos, sin [rows, half]; out contiguous (RoFormer, eq. 34). */
void rotate(int64_t rows, int64_t heads, int64_t half, const NUMBER *x, int64_t stride, const NUMBER *cos, const NUMBER *sin, NUMBER *out) {
    for (int64_t row = 0; row < rows; row++, x += stride, cos += half, sin += half)
        for (int64_t head = 0; head < heads; head++, out += 2 * half) {
            const NUMBER *a = x + head * 2 * half, *b = a + half;
            for (int64_t i = 0; i < half; i++) out[i] = put(get(a[i]) * get(cos[i]) - get(b[i]) * get(sin[i]));
            for (int64_t i = 0; i < half; i++) out[half + i] = put(get(b[i]) * get(cos[i]) + get(a[i]) * get(sin[i]));
        }
}

/* silu(gate) * up; gate_up [rows, 2 width], gate first (arXiv 2002.05202). */
void swiglu(int64_t rows, int64_t width, const NUMBER *gate_up, NUMBER *out) {
    for (int64_t row = 0; row < rows; row++, gate_up += 2 * width, out += width)
        for (int64_t i = 0; i < width; i++) {
            float gate = get(gate_up[i]);
            out[i] = put(gate / (1.0f + exponential(-gate)) * get(gate_up[width + i]));
        }
}

/* Scores of QUERIES queries, [QUERIES][DIM] and scaled, against `count` keys; the largest of each so far in `most`. */
INLINE void score(const float *q, const NUMBER *keys, int64_t count, float *scores, int64_t width, float *most) {
    for (int64_t t = 0; t < count; t++, keys += DIM)
        for (int n = 0; n < QUERIES; n++) {
            float sum = 0.0f;
            for (int i = 0; i < DIM; i++) sum += q[n * DIM + i] * get(keys[i]);
            scores[n * width + t] = sum;
            most[n] = sum > most[n] || sum != sum ? sum : most[n];
        }
}

/* sums [QUERIES][DIM] += weights [QUERIES][width] times `count` values. */
INLINE void add_up(const float *weights, int64_t width, const NUMBER *values, int64_t count, float *sums) {
    float total[QUERIES * DIM];
    for (int i = 0; i < QUERIES * DIM; i++) total[i] = sums[i];
    for (int64_t t = 0; t < count; t++, values += DIM)
        for (int n = 0; n < QUERIES; n++)
            for (int i = 0; i < DIM; i++) total[n * DIM + i] += weights[n * width + t] * get(values[i]);
    for (int i = 0; i < QUERIES * DIM; i++) sums[i] = total[i];
}

/* softmax(q k^T / sqrt(DIM)) v of QUERIES queries that share a KV head, over a prompt's keys and then the row's own. */
INLINE void answer(const NUMBER *q, const NUMBER *prompt_keys, const NUMBER *prompt_values, int64_t start,
                   const NUMBER *keys, const NUMBER *values, int64_t count, float *weights, NUMBER *out) {
    float query[QUERIES * DIM], most[QUERIES], sums[QUERIES * DIM];
    int64_t width = start + count;
    float scale = 1.0f / sqrtf((float)DIM);
    for (int i = 0; i < QUERIES * DIM; i++) { query[i] = get(q[i]) * scale; sums[i] = 0.0f; }
    for (int n = 0; n < QUERIES; n++) most[n] = -INFINITY;
    score(query, prompt_keys, start, weights, width, most);
    score(query, keys, count, weights + start, width, most);
    float total[QUERIES];
    for (int n = 0; n < QUERIES; n++) {
        float sum = 0.0f;
        for (int64_t t = 0; t < width; t++) sum += weights[n * width + t] = exponential(weights[n * width + t] - most[n]);
        total[n] = sum;
    }
    add_up(weights, width, prompt_values, start, sums);
    add_up(weights + start, width, values, count, sums);
    for (int n = 0; n < QUERIES; n++)
        for (int i = 0; i < DIM; i++) out[n * DIM + i] = put(sums[n * DIM + i] / total[n]);
}

/* One new token in each row. Its key and value are stored at `own[row]` of the row's slot; its queries attend over the
   row's prompt (`starts[row]` positions of entry `prompts[row]`) and over its slot up to itself.
   q [rows, kv_heads * group, DIM], k, v [rows, kv_heads, DIM], rows `stride` apart; caches [entries, kv_heads, room, DIM];
   group a multiple of QUERIES; weights: for each thread `room_of_weights` floats, QUERIES (start + own + 1) at least;
   out [rows, kv_heads * group, DIM]. */
void attend(int64_t threads, int64_t rows, int64_t kv_heads, int64_t group, const NUMBER *q, int64_t q_stride, const NUMBER *k, int64_t k_stride,
            const NUMBER *v, int64_t v_stride, const NUMBER *prompt_keys, const NUMBER *prompt_values, int64_t prompt_room,
            const int64_t *prompts, const int64_t *starts, NUMBER *keys, NUMBER *values, int64_t room, const int64_t *own,
            float *weights, int64_t room_of_weights, NUMBER *out) {
    #pragma omp parallel for num_threads((int)threads) collapse(2) schedule(dynamic, 1)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t head = 0; head < kv_heads; head++) {
            int64_t mine = (row * kv_heads + head) * room * DIM, shared = (prompts[row] * kv_heads + head) * prompt_room * DIM;
            memcpy(keys + mine + own[row] * DIM, k + row * k_stride + head * DIM, DIM * sizeof(NUMBER));
            memcpy(values + mine + own[row] * DIM, v + row * v_stride + head * DIM, DIM * sizeof(NUMBER));
            for (int64_t n = head * group; n < (head + 1) * group; n += QUERIES)
                answer(q + row * q_stride + n * DIM, prompt_keys + shared, prompt_values + shared, starts[row],
                       keys + mine, values + mine, own[row] + 1, weights + THREAD * room_of_weights,
                       out + (row * kv_heads * group + n) * DIM);
        }
}
