// The output layer: z <- z + b, a <- f(z), each example's cost C, the tally; delta <- row_weight dC/dz (BP1) and
// db <- the sum of delta over the batch (BP3). `evaluate` does the same without delta and db.
//
// b           (n_models, n_out), its rows b_stride apart
// y           (1 or n_models, batch, n_out), the models' y_stride apart (0: shared)
// row_weight  (1 or n_models, batch), the models' row_weight_stride apart; scale (1 or n_models,) likewise
// costs       (n_models, n_chunks + n_groups, 2) scratch: weighted cost and hits of each chunk, then of each group
// partials    (n_models, n_chunks + n_groups, n_out) scratch, likewise delta's sums
// tickets     (n_models, n_groups + 1) zeros, which they are again afterwards
// z, a        (n_models, batch, n_out); z holds W a on entry; afterwards log a if f is softmax
// delta, db   (n_models, batch, n_out) and (n_models, n_out), rows db_stride apart
// tally       (4, n_models): COST, WEIGHT, HITS, FIRST_BAD
//
// launch      256 threads with LONG_ROWS, which share a row and take 16 bytes at a time; else 128, of which a group of
//             lanes takes a row, each a unit at a time. A block for each model and chunk of rows.

constexpr int PIECE = LONG_ROWS ? VEC : 1;
using Piece = Values<PIECE>;

// The largest value of a row so far, and its place.
struct Largest {
    real value;
    long long place;
};

// Whether x comes before y as the largest: the first of equals, NaN above all.
__device__ __forceinline__ bool beats(const Largest& x, const Largest& y) {
    const bool x_is_nan = x.value != x.value, y_is_nan = y.value != y.value;
    if (x_is_nan || y_is_nan) return x_is_nan && (!y_is_nan || x.place < y.place);
    return x.value > y.value || (x.value == y.value && x.place < y.place);
}

__device__ __forceinline__ Largest join(const Largest& x, const Largest& y) {
    return beats(y, x) ? y : x;
}

__device__ __forceinline__ Largest from_lane(const Largest& x, int n) {
    return {__shfl_xor_sync(0xFFFFFFFFu, x.value, n), __shfl_xor_sync(0xFFFFFFFFu, x.place, n)};
}

struct OutputLayer {
    const real *b, *y, *row_weight;
    const double* scale;
    long long b_stride, y_stride, row_weight_stride, scale_stride, n_models, batch, n_out, rows_of_chunk;
    int group, counts;  // counts: NO_HITS, BY_LARGEST or BY_THRESHOLD
    double threshold;
    double* costs;
    unsigned* tickets;
    real *z, *a;
    double* tally;

    long long model, begin, end;  // the rows of this block
    Chunks chunks;
    int lane;

    __device__ __forceinline__ void place() {
        chunks.n_chunks = (batch + rows_of_chunk - 1) / rows_of_chunk;
        model = blockIdx.x / chunks.n_chunks;
        chunks.chunk = blockIdx.x % chunks.n_chunks;
        begin = chunks.chunk * rows_of_chunk;
        end = min(begin + rows_of_chunk, batch);
        lane = threadIdx.x % group;
    }

    // z <- z + b, a <- f(z) for a row of n units; returns the lane's terms of its cost, and notes the largest a and y
    __device__ __forceinline__ real activate(
        real* z_row, real* a_row, const real* y_row, long long n, Largest* of_a, Largest* of_y) const
    {
        const real* b_row = b + model * b_stride;
#if SOFTMAX
        const SoftmaxSums of = softmax_sums<LONG_ROWS>(z_row, b_row, n, lane, group);
        const real log_sum = log(of.sum);
#endif
        real terms = 0;
#pragma unroll 1
        for (long long j = lane * PIECE; j < n; j += group * PIECE) {
            const Piece ys = values_at<PIECE>(y_row, j);
            Piece zs = values_at<PIECE>(z_row, j), as;
#pragma unroll
            for (int k = 0; k < PIECE; ++k) {
                zs.v[k] += b_row[j + k];
#if SOFTMAX
                as.v[k] = exp(zs.v[k] - of.largest) / of.sum;
                zs.v[k] = zs.v[k] - of.largest - log_sum;  // log a
#else
                as.v[k] = activation_value(zs.v[k]);
#endif
                terms += cost_term(zs.v[k], as.v[k], ys.v[k]);
                if (counts == BY_LARGEST) {
                    *of_a = join(*of_a, {as.v[k], j + k});
                    *of_y = join(*of_y, {ys.v[k], j + k});
                }
            }
            put(z_row, j, zs);
            put(a_row, j, as);
        }
        return terms;
    }

    // the place of a row's largest value, from what its lanes have found
    __device__ __forceinline__ long long largest_of_row(const Largest& of_lane) const {
        return join_group<LONG_ROWS>(of_lane, group, [](const Largest& x, const Largest& y) { return join(x, y); }).place;
    }

    // everything but db; delta may be null
    __device__ __forceinline__ void rows(real* delta, double* cost, double* hits) const {
        const int slot = threadIdx.x / group, n_slots = blockDim.x / group;
        *cost = *hits = 0;
        for (long long first = begin; first < end; first += n_slots) {  // all lanes go round together: they exchange
            const long long row = first + slot, at = (model * batch + row) * n_out;
            const bool active = row < end;
            const long long n = active ? n_out : 0;
            const real* y_row = y + model * y_stride + row * n_out;
            real *z_row = z + at, *a_row = a + at;
            Largest of_a = {-INFINITY, n_out}, of_y = of_a;  // behind every real place
            const real terms = activate(z_row, a_row, y_row, n, &of_a, &of_y);
            const real c = cost_outer(group_sum<LONG_ROWS>(terms, group));
            const real weight = active ? row_weight[model * row_weight_stride + row] : real(0);
#pragma unroll 1
            for (long long j = lane * PIECE; delta && j < n; j += group * PIECE) {
                const Piece zs = values_at<PIECE>(z_row, j), as = values_at<PIECE>(a_row, j);
                const Piece ys = values_at<PIECE>(y_row, j);
                Piece ds;
#pragma unroll
                for (int k = 0; k < PIECE; ++k)
                    ds.v[k] = output_delta_value(zs.v[k], as.v[k], ys.v[k], c, weight);  // BP1
                put(delta + at, j, ds);
            }
            bool hit = false;
            if (counts == BY_LARGEST) hit = largest_of_row(of_a) == largest_of_row(of_y);
            if (counts == BY_THRESHOLD && active) hit = (a_row[0] >= threshold) == (y_row[0] >= threshold);
            if (active && lane == 0) {
                *cost += (double)c * weight;
                *hits += hit ? (double)weight : 0;
            }
        }
    }

    // row `to` <- the sum of n rows of costs from `first` on
    __device__ __forceinline__ void add_costs(long long first, long long n, long long to, const long long* clock) const {
        double cost = 0, hits = 0;
        const double* from = costs + (model * chunks.n_rows() + first) * 2;
        for (long long i = 0; i < n; ++i) {
            cost += __ldcg(from + 2 * i);
            hits += __ldcg(from + 2 * i + 1);
        }
        put_costs(to, cost, hits, clock);
    }

    // row `to` of costs <- cost and hits; with RESULT they go to the tally
    __device__ __forceinline__ void put_costs(long long to, double cost, double hits, const long long* clock) const {
        if (to != RESULT) {
            costs[(model * chunks.n_rows() + to) * 2] = cost;
            costs[(model * chunks.n_rows() + to) * 2 + 1] = hits;
            return;
        }
        cost *= scale[model * scale_stride];
        tally[COST * n_models + model] += cost;
        if (counts != NO_HITS) tally[HITS * n_models + model] += hits * scale[model * scale_stride];
        double* first_bad = tally + FIRST_BAD * n_models + model;
        if (clock && !isfinite(cost) && *first_bad == 0) *first_bad = (double)(clock[STEP] + 1);
    }
};

extern "C" __global__ void output_delta(
    const real* b, long long b_stride, const real* y, long long y_stride, const real* row_weight,
    long long row_weight_stride, const double* scale, long long scale_stride, long long n_models, long long batch,
    long long n_out, long long rows_of_chunk, int group, int counts, double threshold, const long long* clock,
    double* costs, real* partials, unsigned* tickets, real* z, real* a, real* delta, real* db, long long db_stride,
    double* tally)
{
    __shared__ double shared[256];
    OutputLayer layer = {b, y, row_weight, scale, b_stride, y_stride, row_weight_stride, scale_stride, n_models, batch,
                         n_out, rows_of_chunk, group, counts, threshold, costs, tickets, z, a, tally};
    layer.place();
    double cost, hits;
    layer.rows(delta, &cost, &hits);
    cost = block_sum(cost, shared);  // behind its barriers the block's delta is there
    hits = block_sum(hits, shared);
    const Chunks& chunks = layer.chunks;
    const auto sums = [&](long long row) {
        return row == RESULT ? db + layer.model * db_stride : partials + (layer.model * chunks.n_rows() + row) * n_out;
    };
    for (long long j = threadIdx.x * PIECE; j < n_out; j += blockDim.x * PIECE) {
        Piece sum = {};
        for (long long row = layer.begin; row < layer.end; ++row)
            sum = sum + values_at<PIECE>(delta + (layer.model * batch + row) * n_out, j);
        put_anywhere(sums(chunks.row()), j, sum);  // BP3
    }
    if (threadIdx.x == 0) layer.put_costs(chunks.row(), cost, hits, clock);
    chunks.add_up(tickets + layer.model * (chunks.n_groups() + 1), [&](long long first, long long n, long long to) {
        const real* from = sums(first);
        for (long long j = threadIdx.x * PIECE; j < n_out; j += blockDim.x * PIECE) {
            Piece sum = {};
            for (long long i = 0; i < n; ++i) sum = sum + others_values_at<PIECE>(from, i * n_out + j);
            put_anywhere(sums(to), j, sum);
        }
        if (threadIdx.x == 0) layer.add_costs(first, n, to, clock);
    });
}

// As output_delta, without delta and db; moves the clock's position on by a batch.
extern "C" __global__ void evaluate(
    const real* b, long long b_stride, const real* y, long long y_stride, const real* row_weight,
    long long row_weight_stride, const double* scale, long long scale_stride, long long n_models, long long batch,
    long long n_out, long long rows_of_chunk, int group, int counts, double threshold, double* costs, unsigned* tickets,
    real* z, real* a, long long* clock, double* tally)
{
    __shared__ double shared[256];
    OutputLayer layer = {b, y, row_weight, scale, b_stride, y_stride, row_weight_stride, scale_stride, n_models, batch,
                         n_out, rows_of_chunk, group, counts, threshold, costs, tickets, z, a, tally};
    layer.place();
    double cost, hits;
    layer.rows(nullptr, &cost, &hits);
    cost = block_sum(cost, shared);
    hits = block_sum(hits, shared);
    if (blockIdx.x == 0 && threadIdx.x == 0) clock[POSITION] += batch;
    const Chunks& chunks = layer.chunks;
    if (threadIdx.x == 0) layer.put_costs(chunks.row(), cost, hits, nullptr);
    chunks.add_up(tickets + layer.model * (chunks.n_groups() + 1), [&](long long first, long long n, long long to) {
        if (threadIdx.x == 0) layer.add_costs(first, n, to, nullptr);
    });
}
