// delta <- dC/dz from dC/du, dgamma <- the sum of delta zhat, db <- that of dC/dz          (normalised over a row's units)
//
// z           (n_models, batch, features); mean, variance (n_models, batch), of each row
// gamma       (n_models, features), its rows gamma_stride apart
// partials    (n_models, n_chunks + n_groups, 2, features) scratch
// tickets     (n_models, n_groups + 1) zeros, which they are again afterwards
// delta       (n_models, batch, features) dC/du, overwritten
// dgamma, db  (n_models, features), their rows .._stride apart, overwritten
// launch      256 threads with LONG_ROWS, which share a row; else 128, of which a group of lanes takes a row; a block for
//             each model and chunk of rows. The chunks are added as Chunks says: the sums are the same bit for bit,
//             whatever the order in which threads and blocks run

struct Layer {
    const real *z, *mean, *variance, *gamma;
    long long gamma_stride, batch, features, rows_of_chunk;
    int group;
    real* partials;
    unsigned* tickets;
    real *delta, *dgamma, *db;
    long long dgamma_stride, db_stride;
    long long model, begin, end;
    Chunks chunks;

    __device__ __forceinline__ void place() {
        const long long n_chunks = (batch + rows_of_chunk - 1) / rows_of_chunk;
        model = blockIdx.x / n_chunks;
        chunks = {blockIdx.x % n_chunks, n_chunks};
        begin = chunks.chunk * rows_of_chunk;
        end = min(begin + rows_of_chunk, batch);
    }

    // where the sums of a row of scratch stand: for dgamma, or for db
    __device__ __forceinline__ real* sums(long long row, bool of_bias) const {
        if (row == RESULT) return of_bias ? db + model * db_stride : dgamma + model * dgamma_stride;
        return partials + ((model * chunks.n_rows() + row) * 2 + of_bias) * features;
    }

    template <int N>
    __device__ __forceinline__ void carry_back() const {
        columns<N>(false);
        __syncthreads();
        const int slots = blockDim.x / group;
        for (long long first = begin; first < end; first += slots)  // all lanes go round together: they exchange
            carry_row<N>(first + threadIdx.x / group);
        __syncthreads();
        columns<N>(true);
        chunks.add_up(tickets + model * (chunks.n_groups() + 1), [&](long long first, long long n, long long to) {
            for (int of_bias = 0; of_bias < 2; ++of_bias) {
                const real* from = sums(first, of_bias);
                for (long long j = threadIdx.x * N; j < features; j += blockDim.x * N) {
                    Values<N> sum = {};
                    for (long long i = 0; i < n; ++i) sum = sum + others_values_at<N>(from, i * 2 * features + j);
                    put_anywhere(sums(to, of_bias), j, sum);
                }
            }
        });
    }

    // the chunk's sums of dC/du zhat, or of what has become of delta
    template <int N>
    __device__ __forceinline__ void columns(bool of_bias) const {
        for (long long j = threadIdx.x * N; j < features; j += blockDim.x * N) {
            Values<N> sum = {};
#pragma unroll 1
            for (long long row = model * batch + begin; row < model * batch + end; ++row) {
                Values<N> ds = values_at<N>(delta + row * features, j);
                if (!of_bias) {
                    const Values<N> zs = values_at<N>(z + row * features, j);
#pragma unroll
                    for (int k = 0; k < N; ++k) ds.v[k] = gamma_gradient(ds.v[k], zs.v[k], mean[row], variance[row]);
                }
                sum = sum + ds;
            }
            put_anywhere(sums(chunks.row(), of_bias), j, sum);
        }
    }

    template <int N>
    __device__ __forceinline__ void carry_row(long long row_of_model) const {
        const int lane = threadIdx.x % group;
        const bool active = row_of_model < end;
        const long long row = model * batch + (active ? row_of_model : begin), n = active ? features : 0;
        const real middle = mean[row], spread = variance[row];
        const real *z_row = z + row * features, *gamma_row = gamma + model * gamma_stride;
        real* delta_row = delta + row * features;
        real sum = 0, sum_z = 0;
#pragma unroll 1
        for (long long j = lane * N; j < n; j += group * N) {
            const Values<N> zs = values_at<N>(z_row, j), ds = values_at<N>(delta_row, j);
#pragma unroll
            for (int k = 0; k < N; ++k) {
                sum += gamma_row[j + k] * ds.v[k];
                sum_z += gamma_row[j + k] * gamma_gradient(ds.v[k], zs.v[k], middle, spread);
            }
        }
        const real mean_g = group_sum<LONG_ROWS>(sum, group) / real(features);
        const real mean_gz = group_sum<LONG_ROWS>(sum_z, group) / real(features);
#pragma unroll 1
        for (long long j = lane * N; j < n; j += group * N) {
            const Values<N> zs = values_at<N>(z_row, j);
            Values<N> ds = values_at<N>(delta_row, j);
#pragma unroll
            for (int k = 0; k < N; ++k)
                ds.v[k] = delta_of_row(ds.v[k], zs.v[k], middle, spread, gamma_row[j + k], mean_g, mean_gz);
            put(delta_row, j, ds);
        }
    }
};

extern "C" __global__ void rows_delta(
    const real* __restrict__ z, const real* __restrict__ mean, const real* __restrict__ variance,
    const real* __restrict__ gamma, long long gamma_stride, long long batch, long long features,
    long long rows_of_chunk, int group, real* partials, unsigned* tickets, real* delta, real* dgamma,
    long long dgamma_stride, real* db, long long db_stride)
{
    Layer layer = {z, mean, variance, gamma, gamma_stride, batch, features, rows_of_chunk, group, partials, tickets,
                   delta, dgamma, db, dgamma_stride, db_stride};
    layer.place();
    if (LONG_ROWS || features % VEC == 0)
        layer.carry_back<VEC>();
    else
        layer.carry_back<1>();
}
