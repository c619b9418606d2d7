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
        real *z_row = z + row * n_out, *a_row = a + row * n_out;
        const real* b_row = b + row / batch * b_stride;
        real largest = -INFINITY, sum = 0;
        for (long long j = lane; j < n; j += group) {
            z_row[j] += b_row[j];
            largest = z_row[j] > largest ? z_row[j] : largest;
        }
        largest = group_largest(largest, group);
        for (long long j = lane; j < n; j += group) {
            a_row[j] = exp(z_row[j] - largest);
            sum += a_row[j];
        }
        sum = group_sum(sum, group);
        for (long long j = lane; j < n; j += group) a_row[j] /= sum;
    }
}
