/* Local response normalization across channels: y = x s^-BETA, s = K + FACTOR * (the sum of x^2 over SIZE channels).

   kernels.py defines SIZE (odd), FACTOR (alpha / SIZE), K and BETA. A thread has one place of one picture and goes
   through its channels; threads next to each other have places next to each other, so that they read and write whole
   lines of memory. The channels around the current one stay in registers: each value is read once and written once.

   x, y, dx, dy: (N, channels, plane). places: N * plane. */

#define HALF (SIZE / 2)

static __device__ float inverse_power(float s)
{
    if (BETA == 0.75f) {  /* two roots, several times faster than a power */
        const float root = rsqrtf(s);
        return root * sqrtf(root);
    }
    return powf(s, -BETA);
}

static __device__ float scale(const float* window)
{
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < SIZE; ++i) sum += window[i] * window[i];
    return K + FACTOR * sum;
}

static __device__ long long first_value(int place, int channels, int plane)
{
    return (long long)(place / plane) * channels * plane + place % plane;
}

extern "C" __global__ void lrn(float* y, const float* x, int channels, int plane, int places)
{
    const int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= places) return;
    const long long first = first_value(place, channels, plane);
    float window[SIZE];  /* x of channels c - HALF to c + HALF; 0 beyond the first and the last */
#pragma unroll
    for (int i = 0; i < SIZE; ++i) window[i] = 0.0f;
    for (int c = -HALF; c < channels; ++c) {
        const int next = c + HALF;
#pragma unroll
        for (int i = 0; i < SIZE - 1; ++i) window[i] = window[i + 1];
        window[SIZE - 1] = next < channels ? x[first + (long long)next * plane] : 0.0f;
        if (c >= 0) y[first + (long long)c * plane] = window[HALF] * inverse_power(scale(window));
    }
}

/* dx = dy s^-BETA - 2 FACTOR BETA x * (the sum of dy x s^(-BETA - 1) over SIZE channels). */
extern "C" __global__ void lrn_gradient(
    float* dx, const float* x, const float* dy, int channels, int plane, int places)
{
    const int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= places) return;
    const long long first = first_value(place, channels, plane);
    float window[SIZE];       /* x of channels c to c + 2 HALF, the window around channel c + HALF */
    float share[SIZE];        /* dy x s^(-BETA - 1) of channels c - HALF to c + HALF */
    float direct[HALF + 1];   /* dy s^-BETA of channels c to c + HALF */
#pragma unroll
    for (int i = 0; i < SIZE; ++i) window[i] = share[i] = 0.0f;
#pragma unroll
    for (int i = 0; i <= HALF; ++i) direct[i] = 0.0f;
    for (int c = -2 * HALF; c < channels; ++c) {
        const int next = c + 2 * HALF, middle = c + HALF;
#pragma unroll
        for (int i = 0; i < SIZE - 1; ++i) {
            window[i] = window[i + 1];
            share[i] = share[i + 1];
        }
#pragma unroll
        for (int i = 0; i < HALF; ++i) direct[i] = direct[i + 1];
        window[SIZE - 1] = next < channels ? x[first + (long long)next * plane] : 0.0f;
        share[SIZE - 1] = direct[HALF] = 0.0f;
        if (middle >= 0 && middle < channels) {
            const float s = scale(window), d = dy[first + (long long)middle * plane] * inverse_power(s);
            direct[HALF] = d;
            share[SIZE - 1] = d * window[HALF] / s;
        }
        if (c >= 0) {
            float around = 0.0f;
#pragma unroll
            for (int i = 0; i < SIZE; ++i) around += share[i];
            dx[first + (long long)c * plane] = direct[0] - 2.0f * FACTOR * BETA * window[0] * around;
        }
    }
}
