// z <- z + b, u <- gamma zhat + beta, a <- f(u); under dropout a <- a mask / keep           (normalised over a batch's rows)
//
// b, gamma, beta, mean, variance   (n_models, features), their rows .._stride apart: mean and variance of z + b
// keys, clock, threshold, stream, first_row, grow   as in bias_activation
// z           (n_models, batch, features)
// u, a        the same; unless KEEPS_U they are one buffer, which then holds a
// launch      256 threads, any grid; each thread walks over vectors of 16 bytes, whatever the width of a row

extern "C" __global__ void normalise_batch(
    const real* __restrict__ b, long long b_stride, const real* __restrict__ gamma, long long gamma_stride,
    const real* __restrict__ beta, long long beta_stride, const real* __restrict__ mean, long long mean_stride,
    const real* __restrict__ variance, long long variance_stride, long long n_models, long long batch,
    long long features, const unsigned* __restrict__ keys, const long long* __restrict__ clock, unsigned threshold,
    unsigned stream, long long first_row, real grow, real* z, real* u, real* a)
{
    const long long n_values = n_models * batch * features;
#if DROPOUT
    Mask mask = {keys, (unsigned)clock[STEP], stream, threshold, first_row};
#endif
    GRID_STRIDE(i, (n_values + VEC - 1) / VEC) {
        const long long first = i * VEC;
        Place at(first, batch, features);
        Vector zs = load(z, first, n_values), us, as;
#pragma unroll
        for (int k = 0; k < VEC; ++k) {
            if (first + k < n_values) {
                zs.v[k] += b[at.model * b_stride + at.unit];
                us.v[k] = scaled(
                    zs.v[k], mean[at.model * mean_stride + at.unit], variance[at.model * variance_stride + at.unit],
                    gamma[at.model * gamma_stride + at.unit]);
                us.v[k] += beta[at.model * beta_stride + at.unit];
                as.v[k] = activation_value(us.v[k]);
#if DROPOUT
                as.v[k] = drop(as.v[k], mask(at.model, at.row, batch, at.unit), grow);
#endif
            }
            at.step(batch, features);
        }
        store(z, first, n_values, zs);
#if KEEPS_U
        store(u, first, n_values, us);
#endif
        store(a, first, n_values, as);
    }
}
