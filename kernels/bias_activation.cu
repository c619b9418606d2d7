// z <- z + b, a <- f(z); under dropout a <- a mask / keep                                     (the layers' way forward)
//
// b           (n_models, features), its rows b_stride apart
// z, a        (n_models, batch, features); unless KEEPS_Z they are one buffer, which then holds a
// keys, clock, threshold, stream, first_row, grow   what the mask depends on, and 1 / keep; null and 0 without DROPOUT.
//             first_row is the place of row 0 in the batch of the step, where that is done part by part
// kinds, widths   (n_models,) with MIXED: a model's activation, and how many units it has; those beyond get z = a = 0
// thresholds, scales   (n_models,) and (n_models, 2) with RATES: a model's threshold, grow and keep
// launch      256 threads, any grid; each thread walks over vectors of 16 bytes, whatever the width of a row

extern "C" __global__ void bias_activation(
    const real* __restrict__ b, long long b_stride, long long n_models, long long batch, long long features,
    const unsigned* __restrict__ keys, const long long* __restrict__ clock, unsigned threshold, unsigned stream,
    long long first_row, real grow, const int* __restrict__ kinds, const int* __restrict__ widths,
    const unsigned* __restrict__ thresholds, const real* __restrict__ scales, real* z, real* a)
{
    const long long n_values = n_models * batch * features;
#if DROPOUT
    Mask mask = {keys, (unsigned)clock[STEP], stream, threshold, first_row};
#endif
    GRID_STRIDE(i, (n_values + VEC - 1) / VEC) {
        const long long first = i * VEC;
        Place at(first, batch, features);
        Vector zs = load(z, first, n_values), as;
#pragma unroll
        for (int k = 0; k < VEC; ++k) {
            if (first + k < n_values) {
                zs.v[k] += b[at.model * b_stride + at.unit];
                as.v[k] = activation_value(zs.v[k], MIXED ? kinds[at.model] : 0);
                if (MIXED && at.unit >= widths[at.model]) zs.v[k] = as.v[k] = 0;
#if DROPOUT
                if (RATES) mask.threshold = thresholds[at.model], grow = scales[2 * at.model];
                as.v[k] = drop(as.v[k], mask(at.model, at.row, batch, at.unit), grow);
#endif
            }
            at.step(batch, features);
        }
#if KEEPS_Z
        store(z, first, n_values, zs);
#endif
        store(a, first, n_values, as);
    }
}
