// z <- z + b, a <- softmax(z), row by row                                            (an output layer, when predicting)
//
// b           (n_models, n_out), its rows b_stride apart
// z, a        (n_models, batch, n_out), different buffers
// launch      128 threads, any grid; a group of lanes takes a row

extern "C" __global__ void softmax(
    const real* __restrict__ b, long long b_stride, long long n_models, long long batch, long long n_out, int group,
    real* __restrict__ z, real* __restrict__ a)
{
    const int lane = threadIdx.x % group, slots = blockDim.x / group;
    for (long long first = blockIdx.x * (long long)slots; first < n_models * batch; first += gridDim.x * (long long)slots) {
        const long long row = first + threadIdx.x / group;
        const long long n = row < n_models * batch ? n_out : 0;  // all lanes go round together: they exchange
        softmax_row(z + row * n_out, a + row * n_out, b + row / batch * b_stride, n, lane, group);
    }
}
