// What a layer needs that is normalised over the rows of a batch: mean and variance; on the way back dgamma and dC/dz
//
// z, delta    (n_models, batch, features)
// mean, variance   (n_models, features), of z + b over the rows whose row_weight (n_models or 1, batch) is not 0
// partials    scratch for the sums of chunks; tickets (n_models, n_tiles, n_groups + 1) zeros, which they are again
// launch      256 threads; but for batch_delta a block for each model, chunk of rows and tile of lanes * VEC columns. A
//             block sums its chunk in a fixed tree, and the chunks of a tile are added as Chunks says: sums are the same
//             bit for bit, whatever the order in which threads and blocks run

// The columns and rows of one thread.
struct Tile {
    long long features, batch, n_tiles, tile, model, begin, end, column;
    int lane, lanes, strand, n_strands, step;
    bool aligned;
    Chunks chunks;

    __device__ __forceinline__ Tile(long long features, long long batch, long long rows_of_chunk, int lanes)
        : features(features), batch(batch), lanes(lanes) {
        const long long n_chunks = (batch + rows_of_chunk - 1) / rows_of_chunk;
        n_tiles = (features + lanes * VEC - 1) / (lanes * VEC);
        tile = blockIdx.x % n_tiles;
        model = blockIdx.x / n_tiles / n_chunks;
        chunks = {blockIdx.x / n_tiles % n_chunks, n_chunks};
        begin = chunks.chunk * rows_of_chunk;
        end = min(begin + rows_of_chunk, batch);
        lane = threadIdx.x % lanes, strand = threadIdx.x / lanes, n_strands = blockDim.x / lanes;
        // VEC neighbours where each row begins at a multiple of 16 bytes, else each a warp apart
        aligned = features % VEC == 0;
        column = tile * lanes * VEC + (aligned ? lane * VEC : lane);
        step = aligned ? 1 : lanes;
    }

    __device__ __forceinline__ long long unit(int k) const { return column + k * step; }

    // the thread's columns of a row; 0 beyond the last one
    __device__ __forceinline__ Vector values(const real* x, long long row) const {
        const real* x_row = x + (model * batch + row) * features;
        if (aligned && column < features) return *reinterpret_cast<const Vector*>(x_row + column);
        Vector found;
#pragma unroll
        for (int k = 0; k < VEC; ++k) found.v[k] = unit(k) < features ? x_row[unit(k)] : real(0);
        return found;
    }

    // the sum over the strands, in all threads
    __device__ __forceinline__ Vector sum(const Vector& x, Vector* shared) const {
        shared[threadIdx.x] = x;
        __syncthreads();
        for (int n = n_strands / 2; n > 0; n /= 2) {
            if (strand < n) shared[threadIdx.x] = shared[threadIdx.x] + shared[threadIdx.x + n * lanes];
            __syncthreads();
        }
        const Vector total = shared[lane];
        __syncthreads();
        return total;
    }

    __device__ __forceinline__ unsigned* tickets_of_tile(unsigned* tickets) const {
        return tickets + (model * n_tiles + tile) * (chunks.n_groups() + 1);
    }

    // calls add(unit) for the columns of the tile, dealt out to the block's threads
    template <class Add>
    __device__ __forceinline__ void each_unit(const Add& add) const {
        for (long long i = threadIdx.x; i < lanes * VEC; i += blockDim.x) {
            const long long unit = tile * lanes * VEC + i;
            if (unit < features) add(unit);
        }
    }
};

// Of some values: how many, their mean, and the sum of squared differences from it.
struct Moments {
    real n, mean, square;

    // Source: Chan, Golub and LeVeque 1979, eq. 2.1
    __device__ __forceinline__ void join(const Moments& x) {
        const real both = n + x.n, apart = x.mean - mean;
        if (x.n == 0) return;
        square += x.square + apart * apart * n * (x.n / both);
        mean += apart * (x.n / both);
        n = both;
    }
};

// mean, variance <- those of the batch; the running ones of models that are not skipped follow
//
// partials    (n_models, n_chunks + n_groups, 3, features)
// count       (n_models,), overwritten: how many rows count
// running_mean, running_variance   (n_models, features), their rows .._stride apart; null: nothing follows
extern "C" __global__ void batch_statistics(
    const real* __restrict__ b, long long b_stride, const real* __restrict__ z, const real* __restrict__ row_weight,
    long long row_weight_stride, const unsigned char* __restrict__ skip, long long batch, long long features,
    long long rows_of_chunk, int lanes, real* partials, unsigned* tickets, real* mean, real* variance, real* count,
    real* running_mean, long long running_mean_stride, real* running_variance, long long running_variance_stride)
{
    __shared__ Vector shared[256];
    const Tile tile(features, batch, rows_of_chunk, lanes);
    const Chunks& chunks = tile.chunks;
    const long long model = tile.model;
    const real *weights = row_weight + model * row_weight_stride, *b_row = b + model * b_stride;
    Vector bias, sums = {}, counts = {}, squares = {};
#pragma unroll
    for (int k = 0; k < VEC; ++k) bias.v[k] = tile.unit(k) < features ? b_row[tile.unit(k)] : real(0);
    for (long long row = tile.begin + tile.strand; row < tile.end; row += tile.n_strands) {
        if (!(weights[row] > 0)) continue;
        sums = sums + (tile.values(z, row) + bias);
        counts.v[0] += 1;
    }
    const real n = tile.sum(counts, shared).v[0];
    Vector middle = tile.sum(sums, shared);
#pragma unroll
    for (int k = 0; k < VEC; ++k) middle.v[k] /= n > 0 ? n : real(1);
    for (long long row = tile.begin + tile.strand; row < tile.end; row += tile.n_strands) {
        if (!(weights[row] > 0)) continue;
        const Vector values = tile.values(z, row) + bias;
#pragma unroll
        for (int k = 0; k < VEC; ++k) squares.v[k] += (values.v[k] - middle.v[k]) * (values.v[k] - middle.v[k]);
    }
    squares = tile.sum(squares, shared);

    const auto put_moments = [&](long long row, long long unit, const Moments& of) {
        if (row != RESULT) {
            real* out = partials + (model * chunks.n_rows() + row) * 3 * features + unit;
            out[0] = of.n, out[features] = of.mean, out[2 * features] = of.square;
            return;
        }
        const real spread = of.n > 0 ? of.square / of.n : real(1);
        mean[model * features + unit] = of.mean;
        variance[model * features + unit] = spread;
        if (unit == 0) count[model] = of.n;
        if (!running_mean || skip[model]) return;
        real* of_mean = running_mean + model * running_mean_stride + unit;
        real* of_variance = running_variance + model * running_variance_stride + unit;
        if (of.n >= 1) *of_mean = follow(*of_mean, of.mean);
        if (of.n >= 2) *of_variance = follow(*of_variance, spread * (of.n / (of.n - 1)));
    };
    if (tile.strand == 0) {
#pragma unroll
        for (int k = 0; k < VEC; ++k)
            if (tile.unit(k) < features) put_moments(chunks.row(), tile.unit(k), {n, middle.v[k], squares.v[k]});
    }
    chunks.add_up(tile.tickets_of_tile(tickets), [&](long long first, long long n_parts, long long to) {
        tile.each_unit([&](long long unit) {
            const real* from = partials + (model * chunks.n_rows() + first) * 3 * features + unit;
            Moments all = {0, 0, 0};
            for (long long i = 0; i < n_parts; ++i, from += 3 * features)
                all.join({__ldcg(from), __ldcg(from + features), __ldcg(from + 2 * features)});
            put_moments(to, unit, all);
        });
    });
}

// dgamma <- the sum of delta zhat over the batch
//
// delta       dC/du
// partials    (n_models, n_chunks + n_groups, features)
extern "C" __global__ void gamma_gradients(
    const real* __restrict__ z, const real* __restrict__ delta, const real* __restrict__ mean,
    const real* __restrict__ variance, long long batch, long long features, long long rows_of_chunk, int lanes,
    real* partials, unsigned* tickets, real* dgamma, long long dgamma_stride)
{
    __shared__ Vector shared[256];
    const Tile tile(features, batch, rows_of_chunk, lanes);
    const Chunks& chunks = tile.chunks;
    const long long model = tile.model;
    Vector middle, spread, sums = {};
#pragma unroll
    for (int k = 0; k < VEC; ++k) {
        const bool there = tile.unit(k) < features;
        middle.v[k] = there ? mean[model * features + tile.unit(k)] : real(0);
        spread.v[k] = there ? variance[model * features + tile.unit(k)] : real(1);
    }
    for (long long row = tile.begin + tile.strand; row < tile.end; row += tile.n_strands) {
        const Vector zs = tile.values(z, row), ds = tile.values(delta, row);
#pragma unroll
        for (int k = 0; k < VEC; ++k) sums.v[k] += gamma_gradient(ds.v[k], zs.v[k], middle.v[k], spread.v[k]);
    }
    sums = tile.sum(sums, shared);
    const auto sums_of = [&](long long row) {
        return row == RESULT ? dgamma + model * dgamma_stride : partials + (model * chunks.n_rows() + row) * features;
    };
    if (tile.strand == 0) {
#pragma unroll
        for (int k = 0; k < VEC; ++k)
            if (tile.unit(k) < features) sums_of(chunks.row())[tile.unit(k)] = sums.v[k];
    }
    chunks.add_up(tile.tickets_of_tile(tickets), [&](long long first, long long n, long long to) {
        tile.each_unit([&](long long unit) {
            const real* from = sums_of(first) + unit;
            real sum = 0;
            for (long long i = 0; i < n; ++i) sum += __ldcg(from + i * features);
            sums_of(to)[unit] = sum;
        });
    });
}

// delta <- dC/dz from dC/du, db <- 0
//
// gamma, dbeta, dgamma, db   (n_models, features), their rows .._stride apart: the sums of delta and delta zhat
// count       (n_models,) rows that count
// any grid; each thread walks over vectors of 16 bytes, whatever the width of a row
extern "C" __global__ void batch_delta(
    const real* __restrict__ z, const real* __restrict__ mean, const real* __restrict__ variance,
    const real* __restrict__ row_weight, long long row_weight_stride, const real* __restrict__ count,
    const real* __restrict__ gamma, long long gamma_stride, const real* __restrict__ dbeta, long long dbeta_stride,
    const real* __restrict__ dgamma, long long dgamma_stride, long long n_models, long long batch, long long features,
    real* delta, real* db, long long db_stride)
{
    const long long n_values = n_models * batch * features;
    GRID_STRIDE(i, n_models * features) db[divide(i, features) * db_stride + i % features] = 0;
    GRID_STRIDE(i, (n_values + VEC - 1) / VEC) {
        const long long first = i * VEC;
        Place at(first, batch, features);
        const Vector zs = load(z, first, n_values);
        Vector ds = load(delta, first, n_values);
#pragma unroll
        for (int k = 0; k < VEC; ++k) {
            if (first + k < n_values) {
                const real rows = count[at.model] > 0 ? count[at.model] : real(1);
                ds.v[k] = delta_of_batch(
                    ds.v[k], zs.v[k], mean[at.model * features + at.unit], variance[at.model * features + at.unit],
                    gamma[at.model * gamma_stride + at.unit], dbeta[at.model * dbeta_stride + at.unit] / rows,
                    dgamma[at.model * dgamma_stride + at.unit] / rows, row_weight[at.model * row_weight_stride + at.row]);
            }
            at.step(batch, features);
        }
        store(delta, first, n_values, ds);
    }
}
