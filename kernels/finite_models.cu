// not_finite[m] <- 1 where a number of model m is NaN or infinite                                    (after each epoch)
//
// x           (n_models, n), its rows x_stride apart
// not_finite  (n_models,) zeros on entry; threads that find the same write the same
// launch      256 threads, blocks_of_model blocks for each model

extern "C" __global__ void finite_models(
    const real* __restrict__ x, long long x_stride, long long n, long long blocks_of_model, unsigned char* not_finite)
{
    const long long model = blockIdx.x / blocks_of_model;
    const real* row = x + model * x_stride;
    bool found = false;
    const long long stride = blocks_of_model * blockDim.x * VEC;
    for (long long i = (blockIdx.x % blocks_of_model * blockDim.x + threadIdx.x) * VEC; i < n; i += stride) {
        const Vector values = load_anywhere(row, i, n);
#pragma unroll
        for (int k = 0; k < VEC; ++k) found |= !isfinite(values.v[k]);
    }
    if (found) not_finite[model] = 1;
}
