// z <- z + b, u <- gamma zhat + beta, a <- f(u); under dropout a <- a mask / keep         (normalised over a row's units)
//
// b, gamma, beta   (n_models, features), their rows .._stride apart
// keys, clock, threshold, stream, first_row, grow   as in bias_activation
// z           (n_models, batch, features)
// u, a        the same; unless KEEPS_U they are one buffer, which then holds a
// mean, variance   (n_models, batch), overwritten
// launch      256 threads with LONG_ROWS, which share a row; else 128, of which a group of lanes takes a row; any grid.
//             16 bytes per thread and access where each row begins at a multiple of them

struct Layer {
    const real *b, *gamma, *beta;
    long long b_stride, gamma_stride, beta_stride, n_models, batch, features;
    int group;
    const unsigned* keys;
    const long long* clock;
    unsigned threshold, stream;
    long long first_row;
    real grow;
    real *z, *u, *a, *mean, *variance;

    template <int N>
    __device__ __forceinline__ void all_rows() const {
        const long long slots = blockDim.x / group, n_rows = n_models * batch;
        for (long long first = blockIdx.x * slots; first < n_rows; first += gridDim.x * slots)
            normalise<N>(first + threadIdx.x / group, n_rows);  // all lanes go round together: they exchange
    }

    template <int N>
    __device__ __forceinline__ void normalise(long long row, long long n_rows) const {
        const int lane = threadIdx.x % group;
        const long long n = row < n_rows ? features : 0, model = n ? divide(row, batch) : 0;
        const real *b_row = b + model * b_stride, *gamma_row = gamma + model * gamma_stride;
        const real* beta_row = beta + model * beta_stride;
        real* z_row = z + row * features;
        real sum = 0, square = 0;
#pragma unroll 1
        for (long long j = lane * N; j < n; j += group * N) {
            const Values<N> zs = values_at<N>(z_row, j);
#pragma unroll
            for (int k = 0; k < N; ++k) sum += zs.v[k] + b_row[j + k];
        }
        const real middle = group_sum<LONG_ROWS>(sum, group) / real(features);
#pragma unroll 1
        for (long long j = lane * N; j < n; j += group * N) {
            const Values<N> zs = values_at<N>(z_row, j);
#pragma unroll
            for (int k = 0; k < N; ++k) {
                const real away = zs.v[k] + b_row[j + k] - middle;
                square += away * away;
            }
        }
        const real spread = group_sum<LONG_ROWS>(square, group) / real(features);
#if DROPOUT
        Mask mask = {keys, (unsigned)clock[STEP], stream, threshold, first_row};
#endif
#pragma unroll 1
        for (long long j = lane * N; j < n; j += group * N) {
            Values<N> zs = values_at<N>(z_row, j), us, as;
#pragma unroll
            for (int k = 0; k < N; ++k) {
                zs.v[k] += b_row[j + k];
                us.v[k] = scaled(zs.v[k], middle, spread, gamma_row[j + k]) + beta_row[j + k];
                as.v[k] = activation_value(us.v[k]);
#if DROPOUT
                as.v[k] = drop(as.v[k], mask(model, row - model * batch, batch, j + k), grow);
#endif
            }
            put(z_row, j, zs);
#if KEEPS_U
            put(u + row * features, j, us);
#endif
            put(a + row * features, j, as);
        }
        if (n && lane == 0) {
            mean[row] = middle;
            variance[row] = spread;
        }
    }
};

extern "C" __global__ void normalise_rows(
    const real* __restrict__ b, long long b_stride, const real* __restrict__ gamma, long long gamma_stride,
    const real* __restrict__ beta, long long beta_stride, long long n_models, long long batch, long long features,
    int group, const unsigned* __restrict__ keys, const long long* __restrict__ clock, unsigned threshold,
    unsigned stream, long long first_row, real grow, real* z, real* u, real* a, real* mean, real* variance)
{
    const Layer layer = {b, gamma, beta, b_stride, gamma_stride, beta_stride, n_models, batch, features, group, keys,
                         clock, threshold, stream, first_row, grow, z, u, a, mean, variance};
    if (LONG_ROWS || features % VEC == 0)
        layer.all_rows<VEC>();
    else
        layer.all_rows<1>();
}
