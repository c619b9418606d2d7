// a[0], y <- the rows of this step, cast; row_weight, scale <- each example's share; table <- the step's numbers
//
// X             (n_rows, in_features) of x_type; x_aligned: whether each CHUNK of a row begins at a multiple of 16 bytes
// Y             (n_rows, n_out) of real, or with LABELS (n_rows,) labels, and codes (n_codes, n_classes, n_out)
// sample_weight (n_sample_weights, n_rows), or null for 1 everywhere
// keys          (n_orders, 2) words from which each epoch's order of places is computed; null: one after another
// rows          (n_folds, n_places) the row at each place; null: the place itself
// fold, counts  (n_models,) the line of `rows` that a model has, and how many of its places; null: the first, and all
// first, whole  where in the step's batch of `whole` rows the `batch` rows begin that are brought: weights are those of
//               the whole batch, and what concerns it as a whole is done where first is 0
// clock         STEP, EPOCH, POSITION: read
// hyper         (N_GIVEN, n_groups, n_models) and factors (n_steps, n_factors): the step's numbers are computed from them
// penalties     TIMES_ROWS: those of a sum grow with its rows; BY_WEIGHT: divided by the weight of the batch; 0: as given
// a0, y         (n_orders, batch, in_features) and (n_targets, batch, n_out), overwritten
// row_weight    (n_weights, batch), overwritten; 0 for rows that only fill a short batch; scale (n_weights,) likewise
// tally         (4, n_models): the weights of the rows are added
// table         (N_FINISHED, n_groups, n_models), overwritten where N_FINISHED > 0
//
// launch        256 threads; first copy_blocks for each order, then one for each line of row_weight, then as many as
//               n_groups * n_models numbers need. A group of lanes copies a row.

constexpr int TIMES_ROWS = 1, BY_WEIGHT = 2;  // what becomes of the penalties
constexpr int CHUNK = 16 / (sizeof(x_type) < sizeof(real) ? sizeof(x_type) : sizeof(real));

struct alignas(16) XVector {
    x_type v[16 / sizeof(x_type)];
};

// CHUNK values of a row: 16-byte loads, 16-byte stores
__device__ __forceinline__ void copy_chunk(const x_type* __restrict__ from, real* __restrict__ to) {
    x_type values[CHUNK];
#pragma unroll
    for (int i = 0; i < CHUNK; i += 16 / sizeof(x_type)) {
        const XVector loaded = *reinterpret_cast<const XVector*>(from + i);
#pragma unroll
        for (int k = 0; k < 16 / sizeof(x_type); ++k) values[i + k] = loaded.v[k];
    }
#pragma unroll
    for (int i = 0; i < CHUNK; i += VEC) {
        Vector cast;
#pragma unroll
        for (int k = 0; k < VEC; ++k) cast.v[k] = (real)values[i + k];
        *reinterpret_cast<Vector*>(to + i) = cast;
    }
}

// Which row stands at a position of a model's order; beyond the last one it is repeated, with weight 0.
struct Order {
    const unsigned* round_keys;  // null: one place after another
    const long long* rows;       // null: the place itself
    long long n_places;

    __device__ __forceinline__ long long operator()(long long position) const {
        position = min(position, n_places - 1);
        return row_of(round_keys ? place_at(position, round_keys) : position);
    }

    // How many rows of the batch at a position count; none where it is below 1.
    __device__ __forceinline__ long long valid(long long position, long long batch) const {
        return min(batch, n_places - position);
    }

    __device__ __forceinline__ long long row_of(long long place) const { return rows ? rows[place] : place; }

    __device__ __forceinline__ long long place_at(long long position, const unsigned* keys) const {
        const unsigned last = (unsigned)(n_places - 1);
        const int half_bits = max(1, (33 - __clz((int)last)) / 2);  // those of gpumlp/randomness/feistel.py
        return row_at((unsigned)position, keys, last, half_bits);
    }
};

// The weights of a model's rows in this batch: what their mean is divided by.
__device__ __forceinline__ double batch_weight(
    const double* __restrict__ weights, const unsigned* __restrict__ key, unsigned epoch, Order order,
    long long position, long long valid)
{
    if (!weights) return (double)valid;
    double sum = 0;
    if (key) {
        unsigned round_keys[8];  // in registers, so it must not meet Order's, which lie in shared memory
        shuffle_keys(key, epoch, round_keys);
        for (long long p = 0; p < valid; ++p) sum += weights[order.row_of(order.place_at(position + p, round_keys))];
    } else {
        for (long long p = 0; p < valid; ++p) sum += weights[order(position + p)];
    }
    return sum;
}

extern "C" __global__ void gather_batch(
    const x_type* __restrict__ X, const y_type* __restrict__ Y, const real* __restrict__ codes,
    const double* __restrict__ sample_weight, const unsigned* __restrict__ keys, const long long* __restrict__ rows,
    const long long* __restrict__ fold, const long long* __restrict__ counts, const long long* clock,
    const double* __restrict__ hyper, const double* __restrict__ factors, int x_aligned, int group, int mean, int penalties,
    long long copy_blocks, long long n_rows, long long n_places, long long in_features, long long n_out, long long batch,
    long long first, long long whole, long long n_orders, long long n_targets, long long n_codes, long long n_classes,
    long long n_weights, long long n_sample_weights, long long n_factors, long long n_models, long long n_groups,
    real* a0, real* y, real* row_weight, double* scale, double* tally, real* table)
{
    __shared__ unsigned round_keys[8];
    __shared__ double shared[256];
    const long long position = clock[POSITION];
    long long block = blockIdx.x;

    const bool copies = block < copy_blocks * n_orders;
    const long long line = block - copy_blocks * n_orders;  // of row_weight, if it is not to copy
    const long long order_number = copies ? block / copy_blocks : line % n_orders;
    if (keys && threadIdx.x == 0 && (copies || line < n_weights))
        shuffle_keys(keys + 2 * order_number, (unsigned)clock[EPOCH], round_keys);
    __syncthreads();
    const auto order_of = [&](long long model, const unsigned* of_epoch) -> Order {
        return {of_epoch, rows && fold ? rows + fold[model] * n_places : rows, counts ? counts[model] : n_places};
    };

    if (copies) {
        const Order order = order_of(order_number, keys ? round_keys : nullptr);
        const int lane = threadIdx.x % group, slots = blockDim.x / group;
        for (long long p = block % copy_blocks * slots + threadIdx.x / group; p < batch; p += copy_blocks * slots) {
            const long long row = order(position + first + p);
            const x_type* from = X + row * in_features;
            real* to = a0 + (order_number * batch + p) * in_features;
            if (x_aligned)
                for (long long j = lane * CHUNK; j < in_features; j += group * CHUNK) copy_chunk(from + j, to + j);
            else
                for (long long j = lane; j < in_features; j += group) to[j] = (real)from[j];
#pragma unroll 1
            for (long long m = order_number; m < n_targets; m += n_orders) {  // one order may serve models of other codes
#if LABELS
                const real* target = codes + (m % n_codes * n_classes + (long long)Y[row]) * n_out;
#else
                const real* target = Y + row * n_out;
#endif
                real* y_to = y + (m * batch + p) * n_out;
                if (n_out % VEC == 0)
#pragma unroll 1
                    for (long long j = lane * VEC; j < n_out; j += group * VEC)
                        store(y_to, j, n_out, load_anywhere(target, j, n_out));
                else
                    for (long long j = lane; j < n_out; j += group) y_to[j] = target[j];
            }
        }
    } else if (line < n_weights) {
        const Order order = order_of(line, keys ? round_keys : nullptr);
        const long long valid = order.valid(position, whole);
        const double* weights = sample_weight ? sample_weight + line % n_sample_weights * n_rows : nullptr;
        double sum = 0;
        for (long long p = threadIdx.x; p < valid; p += blockDim.x) sum += weights ? weights[order(position + p)] : 1.0;
        sum = block_sum(sum, shared);
        for (long long p = threadIdx.x; p < batch; p += blockDim.x) {
            const double weight = first + p >= valid ? 0.0 : weights ? weights[order(position + first + p)] : 1.0;
            row_weight[line * batch + p] = (real)(mean && sum > 0 ? weight / sum : weight);
        }
        if (threadIdx.x == 0) scale[line] = mean ? sum : 1;
        const long long last = n_weights == 1 ? n_models : line + 1;  // one line may serve all models
        if (first) return;
        for (long long m = line + threadIdx.x; m < last; m += blockDim.x) tally[WEIGHT * n_models + m] += sum;
    } else {
#if N_FINISHED
        const long long i = (line - n_weights) * blockDim.x + threadIdx.x, n = n_groups * n_models;
        if (i >= n) return;
        double given[N_GIVEN], finished[N_FINISHED];
#pragma unroll
        for (int k = 0; k < N_GIVEN; ++k) given[k] = hyper[k * n + i];
        const long long m = i % n_models;
        given[ETA] *= factors[position / whole * n_factors + m % n_factors];
        if (penalties) {
            const Order order = order_of(m, nullptr);
            const long long valid = order.valid(position, whole);
            double factor = (double)valid;
            if (penalties == BY_WEIGHT) {
                const double weight = batch_weight(
                    sample_weight ? sample_weight + m % n_sample_weights * n_rows : nullptr,
                    keys ? keys + 2 * (m % n_orders) : nullptr, (unsigned)clock[EPOCH], order, position, valid);
                factor = weight > 0 ? 1 / weight : 0;
            }
            given[L2] *= factor, given[L1] *= factor;
        }
        step_numbers((double)(clock[STEP] + 1), given, finished);
#pragma unroll
        for (int k = 0; k < N_FINISHED; ++k) table[k * n + i] = (real)finished[k];
#endif
    }
}
