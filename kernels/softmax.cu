// z <- z + b, a <- softmax(z), row by row                                            (an output layer, when predicting)
//
// b           (n_models, n_out), its rows b_stride apart
// z, a        (n_models, batch, n_out), different buffers
// launch      256 threads with LONG_ROWS, which share a row; else 128, of which a group of lanes takes a row; any grid

constexpr int PIECE = LONG_ROWS ? VEC : 1;

extern "C" __global__ void softmax(
    const real* __restrict__ b, long long b_stride, long long n_models, long long batch, long long n_out, int group,
    real* __restrict__ z, real* __restrict__ a)
{
    const int lane = threadIdx.x % group, slots = blockDim.x / group;
    const long long begin = blockIdx.x * (long long)slots, stride = gridDim.x * (long long)slots;
    for (long long first = begin; first < n_models * batch; first += stride) {
        const long long row = first + threadIdx.x / group;
        const long long n = row < n_models * batch ? n_out : 0;  // all lanes go round together: they exchange
        const real* b_row = b + row / batch * b_stride;
        const SoftmaxSums of = softmax_sums<LONG_ROWS>(z + row * n_out, b_row, n, lane, group);
        for (long long j = lane * PIECE; j < n; j += group * PIECE) {
            Values<PIECE> zs = values_at<PIECE>(z + row * n_out, j), as;
#pragma unroll
            for (int k = 0; k < PIECE; ++k) {
                zs.v[k] += b_row[j + k];
                as.v[k] = exp(zs.v[k] - of.largest) / of.sum;
            }
            put(z + row * n_out, j, zs);
            put(a + row * n_out, j, as);
        }
    }
}
