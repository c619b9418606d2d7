// The output layer: z <- z + b, a <- f(z), each example's cost C, the tally; delta <- row_weight dC/dz (BP1) and
// db <- the sum of delta over the batch (BP3). `evaluate` does the same without delta and db.
//
// b           (n_models, n_out), its rows b_stride apart
// y           (1 or n_models, batch, n_out), the models' y_stride apart (0: shared)
// row_weight  (1 or n_models, batch), the models' row_weight_stride apart; scale (1 or n_models,) likewise
// costs       (n_models, n_chunks, 2) scratch: weighted cost and hits of each chunk
// partials    (n_models, n_chunks, n_out) scratch
// tickets     (n_models,) zeros, which they are again afterwards
// z, a        (n_models, batch, n_out); z holds W a on entry; afterwards log a if f is softmax
// delta, db   (n_models, batch, n_out) and (n_models, n_out), rows db_stride apart
// tally       (4, n_models): COST, WEIGHT, HITS, FIRST_BAD
//
// launch      128 threads; a block for each model and chunk of rows. A group of lanes takes a row.

// Whether (x, i) comes before (y, j) as the place of the largest value: the first of equals, NaN above all.
__device__ __forceinline__ bool beats(real x, long long i, real y, long long j) {
    const bool x_is_nan = x != x, y_is_nan = y != y;
    if (x_is_nan || y_is_nan) return x_is_nan && (!y_is_nan || i < j);
    return x > y || (x == y && i < j);
}

// Which of a row's values is the largest.
__device__ __forceinline__ long long group_argmax(const real* row, long long n, int lane, int group, bool active) {
    real best = -INFINITY;
    long long place = n;  // behind every real place
    for (long long j = lane; active && j < n; j += group)
        if (beats(row[j], j, best, place)) best = row[j], place = j;
    for (int s = group / 2; s > 0; s /= 2) {
        const real other = __shfl_xor_sync(0xFFFFFFFFu, best, s, group);
        const long long other_place = __shfl_xor_sync(0xFFFFFFFFu, place, s, group);
        if (beats(other, other_place, best, place)) best = other, place = other_place;
    }
    return place;
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

    long long model, chunk, n_chunks, begin, end;
    int lane;

    __device__ __forceinline__ void place() {
        n_chunks = (batch + rows_of_chunk - 1) / rows_of_chunk;
        model = blockIdx.x / n_chunks;
        chunk = blockIdx.x % n_chunks;
        begin = chunk * rows_of_chunk;
        end = min(begin + rows_of_chunk, batch);
        lane = threadIdx.x % group;
    }

    // a row's z <- z + b and a <- f(z)
    __device__ __forceinline__ void activate(real* z_row, real* a_row, const real* b_row, bool active) const {
        const long long n = active ? n_out : 0;
#if SOFTMAX
        const SoftmaxSums of = softmax_row(z_row, a_row, b_row, n, lane, group);
        const real log_sum = log(of.sum);
        for (long long j = lane; j < n; j += group) z_row[j] = z_row[j] - of.largest - log_sum;  // log a
#else
        for (long long j = lane; j < n; j += group) {
            z_row[j] += b_row[j];
            a_row[j] = activation_value(z_row[j]);
        }
#endif
    }

    __device__ __forceinline__ bool is_hit(const real* a_row, const real* y_row, bool active) const {
        if (counts == BY_THRESHOLD) return active && (a_row[0] >= threshold) == (y_row[0] >= threshold);
        if (counts == NO_HITS) return false;
        return group_argmax(a_row, n_out, lane, group, active) == group_argmax(y_row, n_out, lane, group, active);
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
            activate(z + at, a + at, b + model * b_stride, active);
            real terms = 0;
            for (long long j = lane; j < n; j += group) terms += cost_term(z[at + j], a[at + j], y_row[j]);
            const real c = cost_outer(group_sum(terms, group));
            const real weight = active ? row_weight[model * row_weight_stride + row] : real(0);
            for (long long j = lane; delta && j < n; j += group)
                delta[at + j] = output_delta_value(z[at + j], a[at + j], y_row[j], c, weight);  // BP1
            const bool hit = is_hit(a + at, y_row, active);
            if (active && lane == 0) {
                *cost += (double)c * weight;
                *hits += hit ? (double)weight : 0;
            }
        }
    }

    // true in the block that has to finish the model: all chunks' results are there
    __device__ __forceinline__ bool arrive(double cost, double hits, double* shared) const {
        cost = block_sum(cost, shared);
        hits = block_sum(hits, shared);
        if (threadIdx.x == 0) {
            costs[(model * n_chunks + chunk) * 2] = cost;
            costs[(model * n_chunks + chunk) * 2 + 1] = hits;
        }
        return last_to_arrive(tickets + model, n_chunks);
    }

    __device__ __forceinline__ void add_to_tally(const long long* clock) const {
        double cost = 0, hits = 0;
        for (long long c = 0; c < n_chunks; ++c) {
            cost += __ldcg(costs + (model * n_chunks + c) * 2);
            hits += __ldcg(costs + (model * n_chunks + c) * 2 + 1);
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
    __shared__ double shared[128];
    OutputLayer layer = {b, y, row_weight, scale, b_stride, y_stride, row_weight_stride, scale_stride, n_models, batch,
                         n_out, rows_of_chunk, group, counts, threshold, costs, tickets, z, a, tally};
    layer.place();
    double cost, hits;
    layer.rows(delta, &cost, &hits);
    __syncthreads();
    real* out = layer.n_chunks == 1 ? db + layer.model * db_stride
                                    : partials + (layer.model * layer.n_chunks + layer.chunk) * n_out;
    for (long long j = threadIdx.x; j < n_out; j += blockDim.x) {
        real sum = 0;
        for (long long row = layer.begin; row < layer.end; ++row) sum += delta[(layer.model * batch + row) * n_out + j];
        out[j] = sum;  // BP3
    }
    if (!layer.arrive(cost, hits, shared)) return;
    for (long long j = threadIdx.x; layer.n_chunks > 1 && j < n_out; j += blockDim.x) {
        real sum = 0;
        for (long long c = 0; c < layer.n_chunks; ++c)
            sum += __ldcg(partials + (layer.model * layer.n_chunks + c) * n_out + j);
        db[layer.model * db_stride + j] = sum;
    }
    if (threadIdx.x == 0) layer.add_to_tally(clock);
}

// As output_delta, without delta and db; moves the clock's position on by a batch.
extern "C" __global__ void evaluate(
    const real* b, long long b_stride, const real* y, long long y_stride, const real* row_weight,
    long long row_weight_stride, const double* scale, long long scale_stride, long long n_models, long long batch,
    long long n_out, long long rows_of_chunk, int group, int counts, double threshold, double* costs, unsigned* tickets,
    real* z, real* a, long long* clock, double* tally)
{
    __shared__ double shared[128];
    OutputLayer layer = {b, y, row_weight, scale, b_stride, y_stride, row_weight_stride, scale_stride, n_models, batch,
                         n_out, rows_of_chunk, group, counts, threshold, costs, tickets, z, a, tally};
    layer.place();
    double cost, hits;
    layer.rows(nullptr, &cost, &hits);
    if (blockIdx.x == 0 && threadIdx.x == 0) clock[POSITION] += batch;
    if (layer.arrive(cost, hits, shared) && threadIdx.x == 0) layer.add_to_tally(nullptr);
}
