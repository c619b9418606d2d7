// What all kernels share: 16-byte vectors, sums in a fixed order, Philox and Feistel.
//
// Pasted in front of each kernel, never included: CuPy's cache of compiled kernels looks at the pasted text alone.
// `real` is float or double.

#define GRID_STRIDE(i, n)                                                        \
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < (n); \
         i += gridDim.x * (long long)blockDim.x)

// ---------------------------------------------------------------- vectors of 16 bytes

constexpr int VEC = 16 / sizeof(real);

struct alignas(16) Vector {
    real v[VEC];
};

// x[first .. first + VEC), of which what lies beyond n is 0; x + first must be a multiple of 16 bytes
__device__ __forceinline__ Vector load(const real* x, long long first, long long n) {
    if (first + VEC <= n) return *reinterpret_cast<const Vector*>(x + first);
    Vector found;
#pragma unroll
    for (int k = 0; k < VEC; ++k) found.v[k] = first + k < n ? x[first + k] : real(0);
    return found;
}

// the same wherever x + first lies
__device__ __forceinline__ Vector load_anywhere(const real* x, long long first, long long n) {
    if ((unsigned long long)(x + first) % sizeof(Vector) == 0) return load(x, first, n);
    Vector found;
#pragma unroll
    for (int k = 0; k < VEC; ++k) found.v[k] = first + k < n ? x[first + k] : real(0);
    return found;
}

__device__ __forceinline__ void store(real* x, long long first, long long n, const Vector& values) {
    if (first + VEC <= n) {
        *reinterpret_cast<Vector*>(x + first) = values;
        return;
    }
#pragma unroll
    for (int k = 0; k < VEC; ++k)
        if (first + k < n) x[first + k] = values.v[k];
}

// 64-bit division takes several times as long as 32-bit division, which nearly always suffices
__device__ __forceinline__ long long divide(long long n, long long d) {
    return ((n | d) >> 32) == 0 ? (long long)((unsigned)n / (unsigned)d) : n / d;
}

// ---------------------------------------------------------------- sums in a fixed order

// The sum of x over the block's threads, in all of them; blockDim.x is a power of two, shared holds as many values.
template <class T>
__device__ __forceinline__ T block_sum(T x, T* shared) {
    shared[threadIdx.x] = x;
    __syncthreads();
    for (int n = blockDim.x / 2; n > 0; n /= 2) {
        if (threadIdx.x < n) shared[threadIdx.x] += shared[threadIdx.x + n];
        __syncthreads();
    }
    const T sum = shared[0];
    __syncthreads();
    return sum;
}

// The sum of x over a group of neighbouring lanes, in all of them; the group's size is a power of two up to 32.
__device__ __forceinline__ real group_sum(real x, int group) {
    for (int n = group / 2; n > 0; n /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, n, group);
    return x;
}

// The largest of a group of lanes' values. A NaN among them may be lost: it comes back by the sum of exponentials.
__device__ __forceinline__ real group_largest(real x, int group) {
    for (int n = group / 2; n > 0; n /= 2) {
        const real other = __shfl_xor_sync(0xFFFFFFFFu, x, n, group);
        x = other > x ? other : x;
    }
    return x;
}

struct SoftmaxSums {
    real largest, sum;  // of z, and of exp(z - largest)
};

// z <- z + b and a <- softmax(z) for a row of n units, which a group of lanes shares; all lanes of a warp call it, those
// without a row with n = 0
__device__ __forceinline__ SoftmaxSums softmax_row(
    real* z, real* a, const real* b, long long n, int lane, int group)
{
    real largest = -INFINITY, sum = 0;
    for (long long j = lane; j < n; j += group) {
        z[j] += b[j];
        largest = z[j] > largest ? z[j] : largest;
    }
    largest = group_largest(largest, group);
    for (long long j = lane; j < n; j += group) {
        a[j] = exp(z[j] - largest);
        sum += a[j];
    }
    sum = group_sum(sum, group);
    for (long long j = lane; j < n; j += group) a[j] /= sum;
    return {largest, sum};
}

// True in all threads of the block that comes last of n to this ticket, which is then 0 again. What the others wrote
// before they came can be read by it, through __ldcg.
__device__ __forceinline__ bool last_to_arrive(unsigned* ticket, unsigned n) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(ticket, 1u) == n - 1;
        if (last) *ticket = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}

// ---------------------------------------------------------------- random words

struct Words {
    unsigned w0, w1, w2, w3;
};

// Philox4x32-10; the same bits as gpumlp/randomness/philox.py
__device__ __forceinline__ Words philox(Words c, unsigned key0, unsigned key1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = __umulhi(0xD2511F53u, c.w0), low0 = 0xD2511F53u * c.w0;
        const unsigned high1 = __umulhi(0xCD9E8D57u, c.w2), low1 = 0xCD9E8D57u * c.w2;
        c = {high1 ^ c.w1 ^ key0, low1, high0 ^ c.w3 ^ key1, low0};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// Dropout masks: counter (unit / 4, row of the batch, step, DROPOUT << 16 + layer), as gpumlp/randomness/streams.py
// says. They are drawn again on the way back, never kept.
struct Mask {
    const unsigned* keys;  // (n_models, 2)
    unsigned step, stream, threshold;
    Words words;           // of the last four units that were asked for
    long long place = -1;  // which these are

    // 1 if the unit stays, 0 if it is dropped
    __device__ __forceinline__ real operator()(long long model, long long row, long long rows, long long unit) {
        const long long wanted = ((model * rows + row) << 32) | (unit >> 2);
        if (wanted != place) {
            words = philox({(unsigned)(unit >> 2), (unsigned)row, step, stream}, keys[2 * model], keys[2 * model + 1]);
            place = wanted;
        }
        const unsigned even = unit & 2 ? words.w2 : words.w0, odd = unit & 2 ? words.w3 : words.w1;
        return (unit & 1 ? odd : even) >= threshold ? real(1) : real(0);
    }
};

// ---------------------------------------------------------------- the order of rows

__device__ __forceinline__ unsigned mix(unsigned x, unsigned key) {
    x = (x ^ key) * 0x9E3779B1u;
    x = (x ^ (x >> 15)) * 0x85EBCA77u;
    x = (x ^ (x >> 13)) * 0xC2B2AE3Du;
    return x ^ (x >> 16);
}

// The eight round keys of a model's order in one epoch; stream SHUFFLE of gpumlp/randomness/streams.py
__device__ __forceinline__ void shuffle_keys(const unsigned* key, unsigned epoch, unsigned* round_keys) {
    for (unsigned half = 0; half < 2; ++half) {
        const Words words = philox({epoch, half, 0, 0}, key[0], key[1]);
        round_keys[4 * half] = words.w0;
        round_keys[4 * half + 1] = words.w1;
        round_keys[4 * half + 2] = words.w2;
        round_keys[4 * half + 3] = words.w3;
    }
}

// The row at a position of an order: eight Feistel rounds on 2 * half_bits bits, again until the result is a row;
// gpumlp/randomness/feistel.py
__device__ __forceinline__ unsigned row_at(unsigned position, const unsigned* round_keys, unsigned last, int half_bits) {
    const unsigned mask = (1u << half_bits) - 1;
    unsigned row = position;
    do {
        unsigned left = row >> half_bits, right = row & mask;
#pragma unroll
        for (int round = 0; round < 8; ++round) {
            const unsigned next = left ^ (mix(right, round_keys[round]) & mask);
            left = right;
            right = next;
        }
        row = (left << half_bits) | right;
    } while (row > last);
    return row;
}
