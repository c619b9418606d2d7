// The part of cuBLASLt that dense networks use: D = epilogue(alpha op(A) op(B) + beta C) for real
// matrices, strided batches, and the graphs of the stream. float16 and bfloat16 accumulate in float.
//
// It refuses what the real library is not documented to do, and says why on stderr. The rules come from
// [h] the comments in cublasLt.h, [d] NVIDIA's documentation of cublasLtMatmul and of the attributes,
// [n] the checks and tests of nvmath-python, [s] caution: more strict than documented. FAST_16F and
// FAST_16BF compute in full precision here.
#include "blas.h"

#include <climits>
#include <map>
#include <mutex>
#include <set>

namespace {

// ---- descriptors ---------------------------------------------------------------------------------------

struct Spec { int id, size; int64_t otherwise; };          // an attribute, its size in bytes, its default
enum { COMPUTE = 0, SCALE = 1, POINTERS = 2, TRANSA = 3, TRANSB = 4, TRANSC = 5, FILL = 6, EPILOGUE = 7, BIAS_POINTER = 8, BIAS_STRIDE = 10,
       AUX_POINTER = 11, AUX_LD = 12, AUX_STRIDE = 13, ALPHA_VECTOR_STRIDE = 14, AUX_TYPE = 22, BIAS_TYPE = 26, EMULATION = 38 };
const std::vector<Spec> operation_specs = {
  {COMPUTE, 4, 68}, {SCALE, 4, 0}, {POINTERS, 4, 0}, {TRANSA, 4, 0}, {TRANSB, 4, 0}, {TRANSC, 4, 0}, {FILL, 4, 2}, {EPILOGUE, 4, 1},
  {BIAS_POINTER, 8, 0}, {BIAS_STRIDE, 8, 0}, {AUX_POINTER, 8, 0}, {AUX_LD, 8, 0}, {AUX_STRIDE, 8, 0}, {ALPHA_VECTOR_STRIDE, 8, 0},
  {15, 4, 0}, {17, 8, 0}, {18, 8, 0}, {19, 8, 0}, {20, 8, 0}, {21, 8, 0}, {AUX_TYPE, 4, -1}, {23, 8, 0}, {24, 8, 0}, {25, 1, 0},
  {BIAS_TYPE, 4, -1}, {31, 4, 0}, {32, 4, 0}, {33, 4, 0}, {34, 4, 0}, {35, 4, 0}, {36, 8, 0}, {37, 4, 0}, {EMULATION, 8, 0}, {39, 8, 0}, {40, 8, 0}};
enum { TYPE = 0, ORDER = 1, ROWS = 2, COLS = 3, LD = 4, BATCH = 5, STRIDE = 6, PLANE = 7, MODE = 8 };
const std::vector<Spec> layout_specs = {{TYPE, 4, 0}, {ORDER, 4, 0}, {ROWS, 8, 0}, {COLS, 8, 0}, {LD, 8, 0}, {BATCH, 4, 1}, {STRIDE, 8, 0}, {PLANE, 8, 0}, {MODE, 4, 0}};
enum { SEARCH = 0, WORKSPACE = 1, REDUCTIONS = 3, ALIGNMENT_A = 5 };
const std::vector<Spec> preference_specs = {{SEARCH, 4, 0}, {WORKSPACE, 8, 0}, {REDUCTIONS, 4, 7}, {ALIGNMENT_A, 4, 256}, {6, 4, 256}, {7, 4, 256},
                                            {8, 4, 256}, {9, 4, 0}, {12, 8, -1}};

Status put(void *buf, size_t size, size_t *written, int64_t value, size_t needed) {
  if (size ? !buf || size != needed : !written) return invalid;
  if (size) memcpy(buf, &value, size);
  if (written) *written = needed;
  return success;
}

struct Descriptor {
  const std::vector<Spec> *specs;
  std::map<int, int64_t> values;
  int64_t operator[](int id) const { return values.at(id); }
  explicit Descriptor(const std::vector<Spec> &s) : specs(&s) { for (auto &a : s) values[a.id] = a.otherwise; }
  const Spec *find(int id) const { for (auto &a : *specs) if (a.id == id) return &a; return nullptr; }
  Status set(int id, const void *buf, size_t size) {
    const Spec *a = find(id);
    if (!a || !buf || size != (size_t)a->size) return invalid;
    int64_t wide = 0;
    int32_t narrow;
    if (size == 4) memcpy(&narrow, buf, 4), wide = narrow; else memcpy(&wide, buf, size);
    values[id] = wide;
    return success;
  }
  Status get(int id, void *buf, size_t size, size_t *written) const { return find(id) ? put(buf, size, written, values.at(id), find(id)->size) : invalid; }
};

struct Handle { int magic = 0xB1A51; };
bool valid(const Handle *h) { return h && h->magic == 0xB1A51; }

// What the opaque 64 bytes of cublasLtMatmulAlgo_t hold: the problem that it was made for, and what it
// may rely on. Two algorithms exist: one kernel, and one that splits k and needs a workspace.
struct Algo { int magic, id, split_k, compute, scale, types[4], epilogue, align[4], bias_align, aux_align; };
static_assert(sizeof(Algo) == 64, "as large as cublasLtMatmulAlgo_t");
constexpr int algo_magic = 0xA160;
struct Result { Algo algo; size_t workspace; int state; float waves; int reserved[4]; };

// ---- checks --------------------------------------------------------------------------------------------

struct Matrix { int type, order, batch; long rows, cols, ld, stride; };
struct Problem {                                 // a call by value: descriptors may be destroyed after it
  int compute, scale, pointers, opa, opb, epilogue, batch;
  long m, n, k, bias_stride, aux_ld, aux_stride;
  Matrix a, b, c, d;
  char *bias, *aux;
};
enum { relu = 2, bias = 4, drelu = 8, bgrad = 16, gelu = 32, dgelu = 64, auxiliary = 128, bgrada = 256, bgradb = 512 };
const std::map<int, const char *> epilogue_names = {
  {1, "DEFAULT"}, {relu, "RELU"}, {relu | auxiliary, "RELU_AUX"}, {bias, "BIAS"}, {relu | bias, "RELU_BIAS"}, {relu | auxiliary | bias, "RELU_AUX_BIAS"},
  {drelu | auxiliary, "DRELU"}, {drelu | auxiliary | bgrad, "DRELU_BGRAD"}, {gelu, "GELU"}, {gelu | auxiliary, "GELU_AUX"}, {gelu | bias, "GELU_BIAS"},
  {gelu | auxiliary | bias, "GELU_AUX_BIAS"}, {dgelu | auxiliary, "DGELU"}, {dgelu | auxiliary | bgrad, "DGELU_BGRAD"}, {bgrada, "BGRADA"}, {bgradb, "BGRADB"}};

Status refuse(Status s, const std::string &why) {
  static std::mutex mutex;
  static std::set<std::string> said;
  std::lock_guard<std::mutex> lock(mutex);
  if (said.insert(why).second) message("cuBLASLt refuses with " + std::string(status_name(s)) + ": " + why);
  return s;
}
#define REFUSE_IF(CONDITION, STATUS, ...) if (CONDITION) return refuse(STATUS, __VA_ARGS__)
std::string S(long v) { return std::to_string(v); }

int size_of(int type) { return type == R64 ? 8 : type == R32 ? 4 : 2; }
size_t workspace_of(const Problem &p, int split_k) {
  return split_k > 1 ? ((size_t)split_k * p.m * p.n * p.batch * (p.d.type == R64 ? 8 : 4) + 255) / 256 * 256 : 0;
}
// The row "computeType, scaleType, Atype/Btype, Ctype" of the table in [d]; what is complex, int8 or narrower is left out.
bool documented(int compute, int scale, int in, int out) {
  bool half_compute = compute == 64 || compute == 65, f32 = compute == 68 || compute == 69, fast = compute == 74 || compute == 75 || compute == 77,
       f64 = compute == 70 || compute == 71;
  if (half_compute || f64) return scale == (f64 ? R64 : R16) && in == scale && out == scale;
  return scale == R32 && (f32 || fast) && ((in == R32 && out == R32) || (f32 && (in == R16 || in == B16) && (out == in || out == R32)));
}

Status check_layout(const char *name, const Descriptor *l, Matrix &x, bool may_broadcast) {
  std::string who = std::string("matrix ") + name;
  REFUSE_IF(!l || l->specs != &layout_specs, invalid, who + " has no layout");
  x = {(int)(*l)[TYPE], (int)(*l)[ORDER], (int)(*l)[BATCH], (*l)[ROWS], (*l)[COLS], (*l)[LD], (*l)[STRIDE]};
  REFUSE_IF(x.order != 0 && x.order != 1, unsupported, who + ": only the orders COL and ROW are emulated");
  REFUSE_IF((*l)[PLANE] || (*l)[MODE], unsupported, who + ": planar complex, arrays of pointers and groups are not emulated");
  REFUSE_IF(x.rows < 1 || x.cols < 1 || x.batch < 1, invalid, who + " is empty");                                      // [s]
  REFUSE_IF(x.rows > INT_MAX || x.cols > INT_MAX, unsupported, who + ": rows and columns must fit into 32 bits");       // [h]
  long shortest = x.order ? x.cols : x.rows;
  REFUSE_IF(x.ld < shortest && !(may_broadcast && x.ld == 0), invalid, who + ": leading dimension " + S(x.ld) + " is less than " + S(shortest));   // [h]
  return success;
}

Status check(const Descriptor *o, const Descriptor *la, const Descriptor *lb, const Descriptor *lc, const Descriptor *ld, Problem &p) {
  REFUSE_IF(!o || o->specs != &operation_specs, invalid, "there is no operation descriptor");
  auto &d = *o;
  if (!lc) lc = ld;                                                                                                    // [d]
  if (Status s = check_layout("A", la, p.a, false)) return s;
  if (Status s = check_layout("B", lb, p.b, false)) return s;
  if (Status s = check_layout("D", ld, p.d, false)) return s;
  if (Status s = check_layout("C", lc, p.c, true)) return s;
  p.compute = d[COMPUTE], p.scale = d[SCALE], p.pointers = d[POINTERS], p.opa = d[TRANSA], p.opb = d[TRANSB], p.epilogue = d[EPILOGUE];
  p.bias_stride = d[BIAS_STRIDE], p.aux_ld = d[AUX_LD], p.aux_stride = d[AUX_STRIDE];
  p.bias = (char *)d[BIAS_POINTER], p.aux = (char *)d[AUX_POINTER];
  p.m = p.d.rows, p.n = p.d.cols, p.k = p.opa ? p.a.rows : p.a.cols, p.batch = p.d.batch;
  int e = p.epilogue;
  std::string name = epilogue_names.count(e) ? epilogue_names.at(e) : "";
  REFUSE_IF(name.empty(), invalid, "epilogue " + S(e) + " does not exist");
  // shapes, orders, batches
  REFUSE_IF(p.opa < 0 || p.opa > 2 || p.opb < 0 || p.opb > 2, invalid, "TRANSA and TRANSB are N, T or C");
  REFUSE_IF(d[TRANSC] || d[FILL] != 2, unsupported, "TRANSC must be N and FILL_MODE must be FULL");                      // [h, d]
  REFUSE_IF((p.opa ? p.a.cols : p.a.rows) != p.m || (p.opb ? p.b.rows : p.b.cols) != p.n || (p.opb ? p.b.cols : p.b.rows) != p.k, invalid,
            "op(A) " + S(p.opa ? p.a.cols : p.a.rows) + "x" + S(p.k) + " times op(B) " + S(p.opb ? p.b.cols : p.b.rows) + "x" +
            S(p.opb ? p.b.rows : p.b.cols) + " is not D " + S(p.m) + "x" + S(p.n));
  REFUSE_IF(p.c.type != p.d.type || p.c.rows != p.m || p.c.cols != p.n || p.c.batch != p.batch || p.c.order != p.d.order, invalid,
            "C and D must have the same type, size, batch count and order");                                           // [d]
  REFUSE_IF(p.c.ld == 0 && p.c.type == R64, unsupported, "C with leading dimension 0 is not supported for float64");     // [n]
  REFUSE_IF((p.opa == 2 || p.opb == 2) && (p.a.order != p.d.order || p.b.order != p.d.order), unsupported, "OP_C needs the same order everywhere");   // [d]
  REFUSE_IF(p.a.batch != p.batch || p.b.batch != p.batch, invalid, "the batch counts differ: A " + S(p.a.batch) + ", B " + S(p.b.batch) + ", D " + S(p.batch));
  long width = p.d.order ? p.n : p.m, span = p.d.ld * ((p.d.order ? p.m : p.n) - 1) + width, step = std::abs(p.d.stride);
  REFUSE_IF(p.batch > 1 && step < span && (step < width || step * (p.batch - 1) + width > p.d.ld), invalid,
            "the matrices D of a batch overlap (stride " + S(p.d.stride) + ")");                                       // [s]
  REFUSE_IF(p.batch > 65535 && (p.a.order || p.b.order || p.d.order), unsupported, "more than 65535 matrices need the order COL everywhere");         // [d]
  // types and scaling
  REFUSE_IF(p.a.type != p.b.type || !documented(p.compute, p.scale, p.a.type, p.d.type), unsupported,
            "compute type " + S(p.compute) + ", scale type " + S(p.scale) + ", A " + S(p.a.type) + ", B " + S(p.b.type) + ", C and D " + S(p.d.type) +
            " is not a documented combination for real matrices of 16 to 64 bits");
  REFUSE_IF(p.pointers != 0 && p.pointers != 1, unsupported, "only the pointer modes HOST and DEVICE are emulated");
  REFUSE_IF(d[ALPHA_VECTOR_STRIDE] || d[39] || d[40] || d[EMULATION], unsupported, "batch strides of alpha and beta and EMULATION_DESCRIPTOR are not emulated");
  for (int id : {17, 18, 19, 20, 21, 23, 24, 36, 31, 32, 33, 34, 35, 37})
    REFUSE_IF(d[id], invalid, "scale and amax attributes (here " + S(id) + ") are only for matrices narrower than 16 bits");                        // [d]
  // epilogues
  bool mask = e & (relu | drelu), writes_bias = e & (bgrad | bgrada | bgradb);
  REFUSE_IF(p.d.order && e != 1 && e != relu && e != gelu, unsupported, "epilogue " + name + " needs order COL for D");   // [d] note 6, [n]
  REFUSE_IF(e & (drelu | dgelu) && p.k == 1, unsupported, "epilogue " + name + " does not support k = 1");               // [n]
  REFUSE_IF(e == bgrada && (p.opa || p.a.order || p.m == 1), unsupported, "BGRADA needs A of order COL, not transposed, with more than one row");      // [n]
  REFUSE_IF(e == bgradb && (p.opb != 1 || p.b.order || p.n == 1), unsupported, "BGRADB needs B of order COL, transposed, and more than one column of D");   // [n]
  if (e & bias || writes_bias) {
    REFUSE_IF(d[BIAS_TYPE] != -1 && d[BIAS_TYPE] != p.d.type, invalid, "BIAS_DATA_TYPE must be the type of D");           // [d] table
    long length = e == bgradb ? p.n : p.m;
    REFUSE_IF(p.batch > 1 && writes_bias && p.bias_stride < length, invalid, "the bias gradients of a batch overlap: BIAS_BATCH_STRIDE " + S(p.bias_stride) + " < " + S(length));   // [s]
    REFUSE_IF(p.bias_stride < 0, invalid, "BIAS_BATCH_STRIDE is negative");                                              // [s]
  }
  if (e & auxiliary) {
    int unit = mask ? 128 : 8;
    REFUSE_IF(!p.aux, invalid, "epilogue " + name + " needs EPILOGUE_AUX_POINTER, also for the heuristic");               // [h, n]
    REFUSE_IF(p.aux_ld % unit || p.aux_ld < p.m, invalid, "EPILOGUE_AUX_LD " + S(p.aux_ld) + " must be a multiple of " + S(unit) + " and at least " + S(p.m));   // [h, d]
    REFUSE_IF(p.aux_stride % unit || p.aux_stride < 0, invalid, "EPILOGUE_AUX_BATCH_STRIDE must be a multiple of " + S(unit));                                // [h, d]
    REFUSE_IF(p.batch > 1 && e & (relu | gelu) && p.aux_stride < p.aux_ld * p.n, invalid, "the auxiliary outputs of a batch overlap");                        // [s]
    REFUSE_IF(d[AUX_TYPE] != -1 && (mask || d[AUX_TYPE] != p.d.type), invalid, mask ? "a ReLU mask has no EPILOGUE_AUX_DATA_TYPE" : "EPILOGUE_AUX_DATA_TYPE must be the type of D");   // [d]
  }
  return success;
}

int alignment(const void *p, int most) { int a = 1; while (a < most && (uintptr_t)p % (2 * a) == 0) a *= 2; return a; }   // most: that of NULL
Algo make_algo(const Problem &p, int id, const int *align) {
  return {algo_magic, id, id ? 2 : 1, p.compute, p.scale, {p.a.type, p.b.type, p.c.type, p.d.type}, p.epilogue,
          {align[0], align[1], align[2], align[3]}, alignment(p.bias, 16), alignment(p.aux, 16)};
}
Status check_algo(const Algo &a, const Problem &p) {
  int types[] = {p.a.type, p.b.type, p.c.type, p.d.type};
  REFUSE_IF(a.magic != algo_magic, invalid, "the algorithm was not initialized");
  REFUSE_IF(a.compute != p.compute || a.scale != p.scale || memcmp(a.types, types, sizeof types), invalid, "the algorithm was made for other types");   // [h]
  REFUSE_IF(a.epilogue && a.epilogue != p.epilogue, unsupported, "the algorithm was made for another epilogue");         // [s]
  return success;
}

// ---- the work ------------------------------------------------------------------------------------------

// GELU and its derivative, in the approximation with tanh
template <class T> T gelu_of(T x) { return T(0.5) * x * (1 + std::tanh(T(0.7978845608028654) * (x + T(0.044715) * x * x * x))); }
template <class T> T gelu_slope(T x) {
  T c = T(0.7978845608028654), t = std::tanh(c * (x + T(0.044715) * x * x * x));
  return T(0.5) * (1 + t) + T(0.5) * x * (1 - t * t) * c * (1 + T(3 * 0.044715) * x * x);
}

template <class In, class Out, class Acc>
void run(const Problem &p, Acc alpha, Acc beta, const void *pa, const void *pb, const void *pc, void *pd) {
  int e = p.epilogue;
  for (long batch = 0; batch < p.batch; batch++) {
    auto a = (const In *)pa + batch * p.a.stride, b = (const In *)pb + batch * p.b.stride;
    auto c = (const Out *)pc + batch * p.c.stride;
    auto d = (Out *)pd + batch * p.d.stride, vector = (Out *)p.bias + batch * p.bias_stride;
    auto mask = (unsigned char *)p.aux + batch * p.aux_stride / 8;
    auto aux = (Out *)p.aux + batch * p.aux_stride;
    // a matrix of order ROW is a transposed one of order COL
    auto sum = product<In, Acc>((p.opa != 0) != p.a.order, (p.opb != 0) != p.b.order, p.m, p.n, p.k, a, p.a.ld, b, p.b.ld, p.compute == 77);
    std::vector<Acc> gradient(p.m, Acc(0));
    if (e == bgrada)                             // A is as it is, B is transposed: both sums go along the rows
      for (long i = 0; i < p.m; i++) { Acc s(0); for (long q = 0; q < p.k; q++) s += (Acc)a[q * p.a.ld + i]; vector[i] = Out(s); }
    if (e == bgradb)
      for (long j = 0; j < p.n; j++) { Acc s(0); for (long q = 0; q < p.k; q++) s += (Acc)b[q * p.b.ld + j]; vector[j] = Out(s); }
    for (long j = 0; j < p.n; j++)
      for (long i = 0; i < p.m; i++) {
        Acc x = alpha * sum[j * p.m + i];
        if (beta != Acc(0)) x += beta * (Acc)c[p.c.order ? i * p.c.ld + j : j * p.c.ld + i];
        if (e & bias) x += (Acc)vector[i];
        long at = j * p.aux_ld + i;
        if (e & auxiliary) {
          unsigned char bit = 1 << (at & 7);     // the first row is in the lowest bit; zero counts as positive [n]
          if (e & relu) mask[at >> 3] = (mask[at >> 3] & ~bit) | (x >= 0 ? bit : 0);
          if (e & gelu) aux[at] = Out(x);
          if (e & drelu) x = mask[at >> 3] & bit ? x : Acc(0);
          if (e & dgelu) x *= gelu_slope((Acc)aux[at]);
        }
        if (e & relu) x = x > 0 ? x : Acc(0);    // also for NaN, as on a real GPU
        if (e & gelu) x = gelu_of(x);
        if (e & bgrad) gradient[i] += x;
        d[p.d.order ? i * p.d.ld + j : j * p.d.ld + i] = Out(x);
      }
    if (e & bgrad) for (long i = 0; i < p.m; i++) vector[i] = Out(gradient[i]);
  }
}

template <class In, class Out, class Acc, class Scale>
Status enqueue_matmul(void *stream, const Problem &p, const void *alpha, const void *beta, const void *a, const void *b, const void *c, void *d,
                      void *workspace, size_t used) {
  std::string name = std::string("LtMatmul ") + epilogue_names.at(p.epilogue);
  count("gemm", name + " " + type_name(p.a.type) + " " + "NTC"[p.opa] + "NTC"[p.opb] + " m=" + S(p.m) + " n=" + S(p.n) + " k=" + S(p.k) + " batch=" + S(p.batch));
  bool device = p.pointers;                      // host scalars are read now, device scalars when it runs
  Acc host_alpha = device ? Acc(0) : (Acc)*(const Scale *)alpha, host_beta = device ? Acc(0) : (Acc)*(const Scale *)beta;
  auto work = [=] {
    Operand x[4];
    const void *matrices[] = {a, b, c, d};
    const Matrix *layouts[] = {&p.a, &p.b, &p.c, &p.d};
    for (int i = 0; i < 4; i++) {
      const Matrix &l = *layouts[i];
      x[i] = {&"A\0B\0C\0D"[2 * i], {}, l.order ? l.rows : l.cols, l.order ? l.cols : l.rows, l.ld, size_of(l.type)};
      for (long j = 0; j < p.batch; j++) x[i].matrices.push_back((const char *)matrices[i] + j * l.stride * x[i].size);
    }
    bool reads_c = c && c != d && (device || host_beta != Acc(0));
    check_operands(x[3], reads_c ? std::vector<Operand>{x[0], x[1], x[2]} : std::vector<Operand>{x[0], x[1]});
    if (used) memset(workspace, 0xA5, used);     // as if partial sums were left in it
    run<In, Out, Acc>(p, device ? (Acc)*(const Scale *)alpha : host_alpha, device ? (Acc)*(const Scale *)beta : host_beta, a, b, c, d);
  };
  return enqueue(stream, "cublas", name, [=] { return run_guarded(name, work); }) ? failed : success;
}

}  // namespace

extern "C" {

Status cublasLtCreate(Handle **h) { if (!h) return invalid; *h = new Handle; return success; }
Status cublasLtDestroy(Handle *h) { if (!valid(h)) return notInitialized; h->magic = 0; delete h; return success; }
size_t cublasLtGetVersion() { return EMU_CUDA_VERSION / 1000 * 10000 + EMU_CUDA_VERSION % 1000 * 10; }
size_t cublasLtGetCudartVersion() { return EMU_CUDA_VERSION; }
Status cublasLtGetProperty(int which, int *value) { return get_property(which, value); }
const char *cublasLtGetStatusName(int s) { return status_name(s); }
const char *cublasLtGetStatusString(int s) { return status_string(s); }
unsigned cublasLtDisableCpuInstructionsSetMask(unsigned) { return 0; }
Status cublasLtHeuristicsCacheGetCapacity(size_t *n) { *n = 0; return success; }
Status cublasLtHeuristicsCacheSetCapacity(size_t) { return success; }
Status cublasLtLoggerSetLevel(int) { return success; }     // refusals are always told
Status cublasLtLoggerSetMask(int) { return success; }

#define ATTRIBUTES(NAME, SPECS)                                                                                           \
  Status cublasLt##NAME##Destroy(Descriptor *d) { delete d; return success; }                                             \
  Status cublasLt##NAME##SetAttribute(Descriptor *d, int id, const void *buf, size_t size) { return d && d->specs == &SPECS ? d->set(id, buf, size) : invalid; } \
  Status cublasLt##NAME##GetAttribute(Descriptor *d, int id, void *buf, size_t size, size_t *written) { return d && d->specs == &SPECS ? d->get(id, buf, size, written) : invalid; }
ATTRIBUTES(MatmulDesc, operation_specs) ATTRIBUTES(MatrixLayout, layout_specs) ATTRIBUTES(MatmulPreference, preference_specs)

Status cublasLtMatmulDescCreate(Descriptor **d, int compute, int scale) {
  auto &v = (*d = new Descriptor(operation_specs))->values;
  v[COMPUTE] = compute, v[SCALE] = scale;
  return success;
}
Status cublasLtMatrixLayoutCreate(Descriptor **d, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  auto &v = (*d = new Descriptor(layout_specs))->values;
  v[TYPE] = type, v[ROWS] = rows, v[COLS] = cols, v[LD] = ld;
  return success;
}
Status cublasLtMatmulPreferenceCreate(Descriptor **d) { *d = new Descriptor(preference_specs); return success; }

Status cublasLtMatmulAlgoGetHeuristic(Handle *h, Descriptor *o, Descriptor *a, Descriptor *b, Descriptor *c, Descriptor *d, Descriptor *preference,
                                      int requested, Result *results, int *returned) {
  if (!valid(h)) return notInitialized;
  if (requested < 1 || !results || !returned || !preference || preference->specs != &preference_specs) return invalid;
  *returned = 0;
  Problem p;
  if (Status s = check(o, a, b, c, d, p)) return s;
  REFUSE_IF((*preference)[SEARCH], unsupported, "only the search mode BEST_FIT is emulated");
  int align[4], types[] = {p.a.type, p.b.type, p.c.type, p.d.type};
  for (int i = 0; i < 4; i++) {
    align[i] = (*preference)[ALIGNMENT_A + i];
    REFUSE_IF(align[i] < size_of(types[i]) || align[i] & (align[i] - 1), unsupported, std::string("MIN_ALIGNMENT_") + "ABCD"[i] + "_BYTES " + S(align[i]) + " is not enough");
  }
  for (int id = 1; id >= 0 && *returned < requested; id--) {           // the one with a workspace counts as faster
    Algo algo = make_algo(p, id, align);
    size_t workspace = workspace_of(p, algo.split_k);
    if (!id || (p.k > 1 && workspace <= (uint64_t)(*preference)[WORKSPACE] && (*preference)[REDUCTIONS] & 2))
      results[(*returned)++] = {algo, workspace, success, 1.0f, {}};
  }
  return success;
}
Status cublasLtMatmulAlgoGetIds(Handle *h, int compute, int scale, int ta, int tb, int tc, int td, int requested, int *ids, int *returned) {
  if (!valid(h)) return notInitialized;
  if (requested < 1 || !returned) return invalid;
  *returned = ta == tb && tc == td && documented(compute, scale, ta, tc) ? std::min(requested, 2) : 0;
  for (int i = 0; i < *returned; i++) ids[i] = i;
  return *returned ? success : unsupported;
}
Status cublasLtMatmulAlgoInit(Handle *h, int compute, int scale, int ta, int tb, int tc, int td, int id, Algo *algo) {
  if (!valid(h)) return notInitialized;
  if (!algo || id < 0 || id > 1) return invalid;
  if (ta != tb || tc != td || !documented(compute, scale, ta, tc)) return unsupported;
  *algo = {algo_magic, id, id ? 2 : 1, compute, scale, {ta, tb, tc, td}, 0, {16, 16, 16, 16}, 16, 16};
  return success;
}
Status cublasLtMatmulAlgoCheck(Handle *h, Descriptor *o, Descriptor *a, Descriptor *b, Descriptor *c, Descriptor *d, const Algo *algo, Result *result) {
  if (!valid(h) || !algo || !result) return valid(h) ? invalid : notInitialized;
  Problem p;
  Status s = check(o, a, b, c, d, p);
  if (!s) s = check_algo(*algo, p);
  result->state = s;
  if (!s) result->workspace = workspace_of(p, algo->split_k), result->waves = 1;
  return s;
}
Status cublasLtMatmulAlgoConfigGetAttribute(const Algo *a, int id, void *buf, size_t size, size_t *written) {
  if (!a || id < 0 || id > 8) return invalid;
  return put(buf, size, written, id == 0 ? a->id : id == 2 ? a->split_k : id == 3 ? (a->split_k > 1 ? 2 : 0) : 0, id >= 7 ? 2 : 4);
}
Status cublasLtMatmulAlgoConfigSetAttribute(Algo *a, int id, const void *buf, size_t size) {
  int64_t value = 0;
  if (!a || !buf || id < 1 || id > 8 || size != (id >= 7 ? 2 : 4)) return invalid;
  memcpy(&value, buf, size);
  REFUSE_IF(id == 2 && (a->id ? value < 2 : value > 1), unsupported, "only algorithm 1 splits k");
  REFUSE_IF(id != 2 && id != 3 && value, unsupported, "an algorithm has no tiles, stages or other options to configure here");
  if (id == 2) a->split_k = std::max<int>(1, value);
  return success;
}
Status cublasLtMatmulAlgoCapGetAttribute(const Algo *a, int id, void *buf, size_t size, size_t *written) {
  static const std::map<int, int64_t> capabilities = {{2, 0}, {3, 1}, {4, 1}, {5, 0}, {7, 0}, {10, 0}, {11, 3}, {12, 1023}, {14, 0}, {15, 0}, {21, 0}, {22, 0}};
  if (!a || (size && !buf)) return invalid;
  if (id == 6 || id == 13) { if (written) *written = 0; return success; }                      // no tiles, no stages
  if (id == 0 || id == 1) return put(buf, size, written, !a->id ? 0 : id ? 2 : 1, 4);           // splits k, with which reduction
  if (id >= 16 && id <= 19) return put(buf, size, written, a->align[id - 16], 4);
  auto it = capabilities.find(id);
  return it == capabilities.end() ? invalid : put(buf, size, written, it->second, id == 15 ? 8 : 4);
}

Status cublasLtMatmul(Handle *h, Descriptor *o, const void *alpha, const void *a, Descriptor *la, const void *b, Descriptor *lb, const void *beta,
                      const void *c, Descriptor *lc, void *d, Descriptor *ld, const Algo *chosen, void *workspace, size_t workspace_size, void *stream) {
  if (!valid(h)) return notInitialized;
  Problem p;
  if (Status s = check(o, la, lb, lc, ld, p)) return s;
  static const int default_align[] = {256, 256, 256, 256};                // NULL means the heuristic with default preferences [d]
  Algo algo = chosen ? *chosen : make_algo(p, 0, default_align);
  if (Status s = check_algo(algo, p)) return s;
  size_t used = workspace_of(p, algo.split_k);
  REFUSE_IF(used > workspace_size, invalid, "the algorithm needs a workspace of " + S(used) + " bytes, not " + S(workspace_size));                   // [h]
  REFUSE_IF(workspace_size && (!workspace || (uintptr_t)workspace % 256 || !is_device_visible(workspace)), invalid, "the workspace must be device memory aligned to 256 bytes");   // [d]
  REFUSE_IF(!alpha || !beta, invalid, "alpha or beta is NULL");
  REFUSE_IF(p.pointers && (!is_device_visible(alpha) || !is_device_visible(beta)), invalid, "pointer mode DEVICE, but alpha or beta is not device memory");
  double zero = 0;
  bool no_c = !p.pointers && !memcmp(beta, &zero, size_of(p.scale));      // then C may be NULL [n]
  const void *matrices[] = {a, b, c, d};
  for (int i = 0; i < 4; i++) {
    if (i == 2 && !c && no_c) continue;
    std::string who = std::string("matrix ") + "ABCD"[i];
    REFUSE_IF(!matrices[i] || !is_device_visible(matrices[i]), invalid, who + " is not device memory");
    REFUSE_IF((uintptr_t)matrices[i] % algo.align[i], unsupported, who + " is aligned to only " + S(alignment(matrices[i], 256)) + " bytes; the heuristic was promised " +
              S(algo.align[i]) + (chosen ? " (MIN_ALIGNMENT_..._BYTES)" : " (the default, because no algorithm was given)"));                          // [h]
  }
  REFUSE_IF(d == a || d == b, invalid, "D may be C, but not A or B");
  REFUSE_IF(d == c && (p.c.ld != p.d.ld || (p.batch > 1 && p.c.stride != p.d.stride)), invalid, "C is D, but their layouts differ");                   // [d]
  if (p.epilogue & (bias | bgrad | bgrada | bgradb)) {
    REFUSE_IF(!p.bias || !is_device_visible(p.bias), invalid, "BIAS_POINTER is not device memory");
    REFUSE_IF((uintptr_t)p.bias % std::max(algo.bias_align, size_of(p.d.type)), unsupported, "BIAS_POINTER is less aligned than when the heuristic was asked");   // [h]
  }
  if (p.epilogue & auxiliary) {
    int least = p.epilogue & (relu | drelu) ? 16 : size_of(p.d.type);     // a mask is read in units of 128 bits [s]
    REFUSE_IF(!is_device_visible(p.aux), invalid, "EPILOGUE_AUX_POINTER is not device memory");
    REFUSE_IF((uintptr_t)p.aux % std::max(algo.aux_align, least), unsupported, "EPILOGUE_AUX_POINTER is less aligned than when the heuristic was asked, or than " + S(least));   // [h, s]
  }
#define CASE(IN, OUT, SCALE_TYPE, I, O, ACC, SC) \
  if (p.a.type == IN && p.d.type == OUT && p.scale == SCALE_TYPE) return enqueue_matmul<I, O, ACC, SC>(stream, p, alpha, beta, a, b, c, d, workspace, used);
  CASE(R32, R32, R32, float, float, float, float) CASE(R64, R64, R64, double, double, double, double)
  CASE(R16, R16, R32, half, half, float, float) CASE(R16, R32, R32, half, float, float, float) CASE(R16, R16, R16, half, half, float, half)
  CASE(B16, B16, R32, bf16, bf16, float, float) CASE(B16, R32, R32, bf16, float, float, float)
#undef CASE
  return unsupported;
}

}
