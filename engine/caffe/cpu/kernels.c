/* The loops that torch has no fast operation for on a CPU: convolution by Winograd's tiles, max pooling, LRN across
 * channels, BatchNorm and Scale, the solvers' updates. Built when the package is installed; kernels.py loads them. All
 * arrays are contiguous float32 in Caffe's order (N, C, H, W) unless said otherwise.
 *
 * OpenMP: the library that torch brings is already loaded by then, so these loops run in torch's own threads.
 */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#define WIDEST 1024 /* of a row, its padding included: nobody asks for a wider one, see kernels.py */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EACH_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))
#if defined(__GNUC__) && !defined(__clang__)
#define ANY_ORDER _Pragma("GCC ivdep")
#else
#define ANY_ORDER
#endif

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

#include "batch_norm.h"
#include "lrn.h"
#include "pooling.h"
#include "update.h"
#include "winograd.h"
#include "winograd_5x5.h"
