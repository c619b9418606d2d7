// (w, state) <- one step of the update rule, for all parameters of all models; the clock moves on
//
// grad          (n_models, n_params)
// table         (N_FINISHED, n_groups, n_models): the step's numbers
// skip          (n_models,): models that stay as they are
// begin, middle, end   the groups of parameters in a row: weights, biases; multiples of VEC, the second may be empty
// theta         (n_models, n_params), overwritten
// state         (N_STATES, n_models, n_params), overwritten
// clock         STEP + 1, POSITION + batch; nothing in this kernel reads it
// launch        256 threads, blocks_of_model blocks for each model. A thread walks over vectors of 16 bytes.

extern "C" __global__ void update(
    const real* __restrict__ grad, const real* __restrict__ table, const unsigned char* __restrict__ skip,
    long long n_models, long long n_params, long long n_groups, long long begin, long long middle, long long end,
    long long blocks_of_model, long long batch, real* __restrict__ theta, real* __restrict__ state, long long* clock)
{
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        clock[STEP] += 1;
        clock[POSITION] += batch;
    }
    const long long model = blockIdx.x / blocks_of_model;
    if (skip[model]) return;
    const long long thread = blockIdx.x % blocks_of_model * blockDim.x + threadIdx.x;
    for (long long group = 0; group < n_groups; ++group) {
        real h[N_FINISHED];
#pragma unroll
        for (int k = 0; k < N_FINISHED; ++k) h[k] = table[(k * n_groups + group) * n_models + model];
        const long long stop = model * n_params + (group == 0 ? middle : end);
        const long long start = model * n_params + (group == 0 ? begin : middle);
        for (long long i = start + thread * VEC; i < stop; i += blocks_of_model * blockDim.x * VEC) {
            Vector w = *reinterpret_cast<const Vector*>(theta + i), s[N_STATES + 1];
            const Vector g = *reinterpret_cast<const Vector*>(grad + i);
#pragma unroll
            for (int j = 0; j < N_STATES; ++j)
                s[j] = *reinterpret_cast<const Vector*>(state + j * n_models * n_params + i);
#pragma unroll
            for (int k = 0; k < VEC; ++k) {
                real of_weight[N_STATES + 1];
#pragma unroll
                for (int j = 0; j < N_STATES; ++j) of_weight[j] = s[j].v[k];
                update_weight(w.v[k], g.v[k], of_weight, h);
#pragma unroll
                for (int j = 0; j < N_STATES; ++j) s[j].v[k] = of_weight[j];
            }
            *reinterpret_cast<Vector*>(theta + i) = w;
#pragma unroll
            for (int j = 0; j < N_STATES; ++j)
                *reinterpret_cast<Vector*>(state + j * n_models * n_params + i) = s[j];
        }
    }
}
