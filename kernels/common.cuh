// What all kernels share: 16-byte vectors, sums in a fixed order, softmax, Philox and Feistel.
//
// Pasted in front of each kernel, never included: CuPy's cache of compiled kernels looks at the pasted text alone.
// `real` is float or double.

#define GRID_STRIDE(i, n)                                                        \
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < (n); \
         i += gridDim.x * (long long)blockDim.x)

// ---------------------------------------------------------------- vectors of 16 bytes

constexpr int VEC = 16 / sizeof(real);

// N values side by side, which one access moves
template <int N>
struct alignas(N * sizeof(real)) Values {
    real v[N];
};

using Vector = Values<VEC>;

template <int N>
__device__ __forceinline__ Values<N> operator+(Values<N> x, const Values<N>& y) {
#pragma unroll
    for (int k = 0; k < N; ++k) x.v[k] += y.v[k];
    return x;
}

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

// a row's N values from place j on; x + j must be a multiple of their size
template <int N>
__device__ __forceinline__ Values<N> values_at(const real* x, long long j) {
    return *reinterpret_cast<const Values<N>*>(x + j);
}

// the same of what other blocks wrote: past this multiprocessor's own cache, which may be older
template <int N>
__device__ __forceinline__ Values<N> others_values_at(const real* x, long long j) {
    Values<N> found;
    if constexpr (sizeof(found) == sizeof(int4)) {
        const int4 bits = __ldcg(reinterpret_cast<const int4*>(x + j));
        memcpy(&found, &bits, sizeof(found));
    } else {
#pragma unroll
        for (int k = 0; k < N; ++k) found.v[k] = __ldcg(x + j + k);
    }
    return found;
}

template <int N>
__device__ __forceinline__ void put(real* x, long long j, const Values<N>& values) {
    *reinterpret_cast<Values<N>*>(x + j) = values;
}

// the same wherever x + j lies
template <int N>
__device__ __forceinline__ void put_anywhere(real* x, long long j, const Values<N>& values) {
    if ((unsigned long long)(x + j) % sizeof(values) == 0) return put(x, j, values);
#pragma unroll
    for (int k = 0; k < N; ++k) x[j + k] = values.v[k];
}

// 64-bit division takes several times as long as 32-bit division, which nearly always suffices
__device__ __forceinline__ long long divide(long long n, long long d) {
    return ((n | d) >> 32) == 0 ? (long long)((unsigned)n / (unsigned)d) : n / d;
}

// Where a value of a buffer (n_models, batch, features) stands.
struct Place {
    long long model, row, unit;

    __device__ __forceinline__ Place(long long i, long long batch, long long features) {
        row = divide(i, features), unit = i - row * features;
        model = divide(row, batch), row -= model * batch;
    }

    // On to the next value.
    __device__ __forceinline__ void step(long long batch, long long features) {
        if (++unit == features) {
            unit = 0;
            if (++row == batch) row = 0, ++model;
        }
    }
};

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

constexpr int WARP = 32;

__device__ __forceinline__ real from_lane(real x, int n) {
    return __shfl_xor_sync(0xFFFFFFFFu, x, n);
}

// What `join` makes of the x of a group of threads, in all of them; all threads of the block call it together. The group
// are neighbouring lanes, as many as a power of two up to 32, or with WHOLE_BLOCK all warps of a block, 8 at most.
template <bool WHOLE_BLOCK, class T, class Join>
__device__ __forceinline__ T join_group(T x, int group, const Join& join) {
    for (int n = (WHOLE_BLOCK ? WARP : group) / 2; n > 0; n /= 2) x = join(x, from_lane(x, n));
    if constexpr (WHOLE_BLOCK) {
        __shared__ T of_warp[8];
        __syncthreads();  // what stood there before has been read
        if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = x;
        __syncthreads();
        x = of_warp[0];
        for (int w = 1; w < group / WARP; ++w) x = join(x, of_warp[w]);
    }
    return x;
}

template <bool WHOLE_BLOCK>
__device__ __forceinline__ real group_sum(real x, int group) {
    return join_group<WHOLE_BLOCK>(x, group, [](real p, real q) { return p + q; });
}

// The largest of a group's values. A NaN among them may be lost: it comes back by the sum of exponentials.
template <bool WHOLE_BLOCK>
__device__ __forceinline__ real group_largest(real x, int group) {
    return join_group<WHOLE_BLOCK>(x, group, [](real p, real q) { return q > p ? q : p; });
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

constexpr long long RESULT = -1;

// One sum, of which each block has a part, its chunk. Chunks are added in groups of CHUNKS_OF_GROUP, then the groups,
// each time in their order, so the sum is the same bit for bit whichever block comes when.
struct Chunks {
    long long chunk, n_chunks;

    // How many rows of scratch hold sums: of each chunk, and behind them of each group.
    __device__ __forceinline__ long long n_rows() const { return n_chunks + n_groups(); }

    __device__ __forceinline__ long long n_groups() const { return (n_chunks + CHUNKS_OF_GROUP - 1) / CHUNKS_OF_GROUP; }

    // The row for the sum of this block's chunk; RESULT if there is no other chunk.
    __device__ __forceinline__ long long row() const { return n_chunks == 1 ? RESULT : chunk; }

    // Lets the last block to arrive of each group call add(first, n, to), which sets row `to` to the sum of the n rows
    // from `first` on, and the last group to arrive likewise with to = RESULT. All threads of a block call this once
    // row() is written. tickets: n_groups() + 1 zeros, which they are again afterwards.
    template <class Add>
    __device__ __forceinline__ void add_up(unsigned* tickets, const Add& add) const {
        const long long group = chunk / CHUNKS_OF_GROUP;
        long long first = group * CHUNKS_OF_GROUP, n = min((long long)CHUNKS_OF_GROUP, n_chunks - first);
        long long to = n_groups() == 1 ? RESULT : n_chunks + group;
        unsigned* ticket = tickets + group;
        while (n_chunks > 1 && last_to_arrive(ticket, n)) {
            add(first, n, to);
            if (to == RESULT) return;
            first = n_chunks, n = n_groups(), to = RESULT, ticket = tickets + n;
        }
    }
};

// ---------------------------------------------------------------- softmax

struct SoftmaxSums {
    real largest, sum;  // of z + b, and of exp(z + b - largest)
};

// The two numbers that softmax needs of a row of n units, which a group shares: lanes, which take one unit at a time, or
// the WHOLE_BLOCK, whose threads take 16 bytes at a time. All threads call it, those without a row with n = 0.
template <bool WHOLE_BLOCK>
__device__ __forceinline__ SoftmaxSums softmax_sums(const real* z, const real* b, long long n, int lane, int group) {
    constexpr int N = WHOLE_BLOCK ? VEC : 1;
    real largest = -INFINITY, sum = 0;
    for (long long j = lane * N; j < n; j += group * N) {
        const Values<N> zs = values_at<N>(z, j);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const real t = zs.v[k] + b[j + k];
            largest = t > largest ? t : largest;
        }
    }
    largest = group_largest<WHOLE_BLOCK>(largest, group);
    for (long long j = lane * N; j < n; j += group * N) {
        const Values<N> zs = values_at<N>(z, j);
#pragma unroll
        for (int k = 0; k < N; ++k) sum += exp(zs.v[k] + b[j + k] - largest);
    }
    return {largest, group_sum<WHOLE_BLOCK>(sum, group)};
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
    long long first;       // place of the first row in the batch of the step
    Words words;           // of the last four units that were asked for
    long long place = -1;  // which these are

    // 1 if the unit stays, 0 if it is dropped
    __device__ __forceinline__ real operator()(long long model, long long row, long long rows, long long unit) {
        const long long wanted = ((model * rows + row) << 32) | (unit >> 2);
        if (wanted != place) {
            const Words counter = {(unsigned)(unit >> 2), (unsigned)(first + row), step, stream};
            words = philox(counter, keys[2 * model], keys[2 * model + 1]);
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
