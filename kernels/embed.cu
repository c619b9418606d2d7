// embed:        a <- the rows, in which a line of a table that is learned stands in place of each code
// sum_by_code:  dtables <- the sum of delta over the rows of each code                          (BP4 of the tables)
//
// units       (4, n) of each number that the first layer reads: rows COLUMN, CATEGORIES, FIRST, APART of a Lookup
// firsts      (n_tables,) the first of the units of each code
// rows        (1 or n_models, batch, n_columns), those of models rows_stride apart
// tables, dtables   (n_models, n_line), their rows .._stride apart; dtables overwritten but for the padding of tables
// a           (n_models, batch, n), overwritten
// delta       (n_models, batch, n_deltas) of the units from firsts[0] on
// partials    (n_models, n_chunks + n_groups, n_line) scratch, null for one chunk
// tickets     (n_models, n_tiles, n_groups + 1) zeros, which they are again afterwards, null for one chunk
//
// launch      256 threads. Of embed any grid: each thread walks over vectors of 16 bytes. Of sum_by_code a block for each
//             model, chunk of rows and tile of neighbouring categories of a table, of which each has a warp: this looks for
//             its code in 32 rows at a time, and adds what it finds one row after another. Chunks are added as Chunks says.

// The code that a number is, -1 if it is none.
__device__ __forceinline__ long long code_of(real value, long long categories) {
    const long long code = value >= 0 && value < (real)categories ? (long long)value : -1;
    return (real)code == value ? code : -1;
}

extern "C" __global__ void embed(
    const long long* __restrict__ units, const real* __restrict__ rows, long long rows_stride,
    const real* __restrict__ tables, long long tables_stride, long long n_models, long long batch, long long n_columns,
    long long n, real* a)
{
    const long long n_values = n_models * batch * n;
    GRID_STRIDE(i, (n_values + VEC - 1) / VEC) {
        const long long first = i * VEC;
        Place at(first, batch, n);
        Vector as;
#pragma unroll
        for (int k = 0; k < VEC; ++k) {
            if (first + k < n_values) {
                const long long *unit = units + at.unit, categories = unit[CATEGORIES * n];
                as.v[k] = rows[at.model * rows_stride + at.row * n_columns + unit[COLUMN * n]];
                if (categories) {
                    const long long code = code_of(as.v[k], categories);
                    const real* line = tables + at.model * tables_stride + code * unit[APART * n];
                    as.v[k] = code < 0 ? real(0) : line[unit[FIRST * n]];
                }
            }
            at.step(batch, n);
        }
        store(a, first, n_values, as);
    }
}

constexpr int CODES = 256 / WARP;  // of a tile

extern "C" __global__ void sum_by_code(
    const long long* __restrict__ units, const long long* __restrict__ firsts, const real* __restrict__ rows,
    long long rows_stride, const real* __restrict__ delta, long long batch, long long n_columns, long long n,
    long long n_deltas, long long n_line, long long n_tiles, long long rows_of_chunk, real* partials, unsigned* tickets,
    real* dtables, long long dtables_stride)
{
    const long long n_chunks = (batch + rows_of_chunk - 1) / rows_of_chunk;
    const long long model = blockIdx.x / n_tiles / n_chunks, tile = blockIdx.x % n_tiles;
    const Chunks chunks = {blockIdx.x / n_tiles % n_chunks, n_chunks};
    const long long begin = chunks.chunk * rows_of_chunk, end = min(begin + rows_of_chunk, batch);

    long long first = tile * CODES, table = 0;  // first code of the tile; tiles begin anew with each table
    while (first >= units[CATEGORIES * n + firsts[table]])
        first -= (units[CATEGORIES * n + firsts[table++]] + CODES - 1) / CODES * CODES;
    const long long *unit = units + firsts[table], categories = unit[CATEGORIES * n], n_units = unit[APART * n];
    const long long code = first + threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    const auto sums_of = [&](long long row) {  // of the tile's first code
        real* line = row == RESULT ? dtables + model * dtables_stride
                                   : partials + (model * chunks.n_rows() + row) * n_line;
        return line + unit[FIRST * n] + first * n_units;
    };

    const real* column = rows + model * rows_stride + unit[COLUMN * n];
    const real* deltas = delta + model * batch * n_deltas + firsts[table] - firsts[0];
    if (code < categories) {
        for (long long j = 0; j < n_units; j += WARP) {
            const bool adds = j + lane < n_units;
            real sum = 0;
            for (long long row = begin; row < end; row += WARP) {
                const bool is_own = row + lane < end && code_of(column[(row + lane) * n_columns], categories) == code;
                real part = 0;
                for (unsigned found = __ballot_sync(0xFFFFFFFFu, is_own); found; found &= found - 1)
                    if (adds) part += deltas[(row + __ffs(found) - 1) * n_deltas + j + lane];
                sum += part;
            }
            if (adds) sums_of(chunks.row())[(code - first) * n_units + j + lane] = sum;
        }
    }
    unsigned* of_tile = tickets + (model * n_tiles + tile) * (chunks.n_groups() + 1);
    chunks.add_up(of_tile, [&](long long from, long long n_rows, long long to) {
        const long long n_sums = min((long long)CODES, categories - first) * n_units;
        for (long long i = threadIdx.x; i < n_sums; i += blockDim.x) {
            real sum = 0;
            for (long long row = from; row < from + n_rows; ++row) sum += __ldcg(sums_of(row) + i);
            sums_of(to)[i] = sum;
        }
    });
}
