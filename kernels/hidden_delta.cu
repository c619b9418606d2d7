// delta <- delta * f'(z), the factor of BP2, and db <- the sum of delta over the batch (BP3)
//
// z, a        (n_models, batch, features); a holds f(z), under dropout f(z) mask / keep
// keys, clock, threshold, stream, first_row, grow, keep   as in bias_activation: the mask is drawn again
// kinds, widths, thresholds, scales   as in bias_activation; units beyond a model's width get delta = 0
// partials    (n_models, n_chunks + n_groups, features) scratch
// tickets     (n_models, n_tiles, n_groups + 1) zeros, which they are again afterwards
// delta       (n_models, batch, features) W^T delta of the next layer, overwritten
// db          (n_models, features), its rows db_stride apart, overwritten
//
// launch      256 threads; a block for each model, chunk of rows and tile of lanes * VEC columns. A block sums its chunk
//             in a fixed tree, and the chunks of a tile are added as Chunks says: db is the same bit for bit, whatever
//             the order in which threads and blocks run.

extern "C" __global__ void hidden_delta(
    const real* __restrict__ z, const real* __restrict__ a, long long batch, long long features,
    long long rows_of_chunk, int lanes, const unsigned* __restrict__ keys, const long long* __restrict__ clock,
    unsigned threshold, unsigned stream, long long first_row, real grow, real keep, const int* __restrict__ kinds,
    const int* __restrict__ widths, const unsigned* __restrict__ thresholds, const real* __restrict__ scales,
    real* partials, unsigned* tickets, real* delta, real* db, long long db_stride)
{
    __shared__ real shared[256][VEC];
    const long long n_tiles = (features + lanes * VEC - 1) / (lanes * VEC);
    const long long n_chunks = (batch + rows_of_chunk - 1) / rows_of_chunk;
    const long long tile = blockIdx.x % n_tiles, model = blockIdx.x / n_tiles / n_chunks;
    const Chunks chunks = {blockIdx.x / n_tiles % n_chunks, n_chunks};
    const long long begin = chunks.chunk * rows_of_chunk, end = min(begin + rows_of_chunk, batch);
    const int lane = threadIdx.x % lanes, strand = threadIdx.x / lanes, n_strands = blockDim.x / lanes;
    // a thread's columns: VEC neighbours where each row begins at a multiple of 16 bytes, else each a warp apart
    const bool aligned = features % VEC == 0;
    const long long column = tile * lanes * VEC + (aligned ? lane * VEC : lane);
    const int step = aligned ? 1 : lanes;
    const int kind = MIXED ? kinds[model] : 0;
    const long long width = MIXED ? widths[model] : features;
#if DROPOUT
    if (RATES) threshold = thresholds[model], grow = scales[2 * model], keep = scales[2 * model + 1];
    Mask mask = {keys, (unsigned)clock[STEP], stream, threshold, first_row};
#endif
    real sums[VEC] = {};
    for (long long row = begin + strand; row < end; row += n_strands) {
        const long long base = (model * batch + row) * features;
        Vector ds, zs, as;
        if (aligned && column < features) {
            ds = *reinterpret_cast<const Vector*>(delta + base + column);
            zs = *reinterpret_cast<const Vector*>(z + base + column);
            as = *reinterpret_cast<const Vector*>(a + base + column);
        }
#pragma unroll
        for (int k = 0; k < VEC; ++k) {
            const long long unit = column + k * step;
            if (unit >= features) continue;
            if (!aligned) {
                ds.v[k] = delta[base + unit];
                zs.v[k] = z[base + unit];
                as.v[k] = a[base + unit];
            }
#if DROPOUT
            ds.v[k] = carry_back(ds.v[k], zs.v[k], as.v[k], mask(model, row, batch, unit), grow, keep, kind);
#else
            ds.v[k] = carry_back(ds.v[k], zs.v[k], as.v[k], kind);
#endif
            if (MIXED && unit >= width) ds.v[k] = 0;
            sums[k] += ds.v[k];
            if (!aligned) delta[base + unit] = ds.v[k];
        }
        if (aligned && column < features) *reinterpret_cast<Vector*>(delta + base + column) = ds;
    }

#pragma unroll
    for (int k = 0; k < VEC; ++k) shared[threadIdx.x][k] = sums[k];
    __syncthreads();
    for (int n = n_strands / 2; n > 0; n /= 2) {
        if (strand < n) {
#pragma unroll
            for (int k = 0; k < VEC; ++k) shared[threadIdx.x][k] += shared[threadIdx.x + n * lanes][k];
        }
        __syncthreads();
    }
    const auto sums_of = [&](long long row) {
        return row == RESULT ? db + model * db_stride : partials + (model * chunks.n_rows() + row) * features;
    };
    if (strand == 0) {
        real* out = sums_of(chunks.row());
#pragma unroll
        for (int k = 0; k < VEC; ++k)
            if (column + k * step < features) out[column + k * step] = shared[threadIdx.x][k];
    }
    unsigned* of_tile = tickets + (model * n_tiles + tile) * (chunks.n_groups() + 1);
    chunks.add_up(of_tile, [&](long long first, long long n, long long to) {
        for (long long i = threadIdx.x; i < lanes * VEC; i += blockDim.x) {
            const long long unit = tile * lanes * VEC + i;
            if (unit >= features) continue;
            const real* from = sums_of(first) + unit;
            real sum = 0;
            for (long long row = 0; row < n; ++row) sum += __ldcg(from + row * features);
            sums_of(to)[unit] = sum;
        }
    });
}
