// clip <- min(1, clip_norm / |grad|) for each model, without the host's looking at it
//
// grad        (n_models, n), its rows grad_stride apart
// clip_norm   (n_models,)
// partials    (n_models, n_chunks) scratch; tickets (n_models,) zeros, which they are again afterwards
// clip        (n_groups, n_models), overwritten
// launch      256 threads, n_chunks blocks for each model. Squares are summed in double, so that none overflows, and in
//             a fixed order.

extern "C" __global__ void gradient_norm(
    const real* __restrict__ grad, long long grad_stride, const double* __restrict__ clip_norm, long long n,
    long long n_chunks, long long n_models, long long n_groups, double* partials, unsigned* tickets, real* clip)
{
    __shared__ double shared[256];
    const long long model = blockIdx.x / n_chunks, chunk = blockIdx.x % n_chunks;
    const real* g = grad + model * grad_stride;
    double square = 0;
    for (long long i = (chunk * blockDim.x + threadIdx.x) * VEC; i < n; i += n_chunks * blockDim.x * VEC) {
        const Vector values = load_anywhere(g, i, n);
#pragma unroll
        for (int k = 0; k < VEC; ++k) square += (double)values.v[k] * (double)values.v[k];
    }
    square = block_sum(square, shared);
    if (threadIdx.x == 0) partials[model * n_chunks + chunk] = square;
    if (!last_to_arrive(tickets + model, n_chunks)) return;
    square = 0;
    for (long long c = threadIdx.x; c < n_chunks; c += blockDim.x) square += __ldcg(partials + model * n_chunks + c);
    square = block_sum(square, shared);
    if (threadIdx.x != 0) return;
    const double share = square > 0 ? min(1.0, clip_norm[model] / sqrt(square)) : 1.0;  // NaN is found in the cost
    for (long long group = 0; group < n_groups; ++group) clip[group * n_models + model] = (real)share;
}
