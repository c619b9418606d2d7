// The emulated device: memory, streams, events, graphs and modules behind the CUDA runtime and driver
// APIs. Handles are pointers to the structs below.
#include "core.h"
#include "device_properties.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <set>

using namespace emu;

namespace {

// ---- the one lock; released while host callbacks run, because those may need Python's own lock ----

struct Lock {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_t owner{};
  int depth = 0;
  void lock() {
    if (depth && pthread_equal(owner, pthread_self())) { depth++; return; }
    pthread_mutex_lock(&mutex);
    owner = pthread_self(), depth = 1;
  }
  void unlock() { if (--depth == 0) pthread_mutex_unlock(&mutex); }
  int release() { int d = depth; depth = 0; pthread_mutex_unlock(&mutex); return d; }
  void acquire(int d) { pthread_mutex_lock(&mutex); owner = pthread_self(); depth = d; }
} device_lock;

struct Guard { Guard() { device_lock.lock(); } ~Guard() { device_lock.unlock(); } };

// ---- state ----------------------------------------------------------------------------------------

enum Kind { host, pinned, device, managed };
struct Pool;
struct Allocation { size_t size; Kind kind; int device; char *base; size_t mapped; Pool *pool; };

struct Stream;
struct Record { Stream *stream; uint64_t sequence; double time = -1; };
enum NodeKind { KERNEL, MEMCPY, MEMSET, HOST, MEM_ALLOC, MEM_FREE };
const char *const node_kinds[] = {"KERNEL", "MEMCPY", "MEMSET", "HOST", "MEM_ALLOC", "MEM_FREE"};
struct Label { NodeKind kind; std::string name; const char *group = nullptr; };   // group: of the statistics
struct Node { Label label; std::function<int()> work; std::vector<int> after; };
struct Graph { std::vector<Node> nodes; };
struct Capture { Stream *origin; Graph *graph; int mode; pthread_t thread; bool invalid = false; std::set<Stream *> joined; };
struct Queued { std::function<int()> work; std::vector<std::pair<Stream *, uint64_t>> after; };
struct Stream {
  int device; bool blocking; unsigned flags; int priority; int id;
  std::deque<Queued> queue;
  uint64_t issued = 0, finished = 0;
  Capture *capture = nullptr;
  std::vector<int> tail;                         // last captured nodes
};
struct Event {
  unsigned flags;
  std::shared_ptr<Record> record;
  Capture *capture = nullptr;
  std::vector<int> nodes;
};
struct Function { Module *module; const KernelEntry *kernel; std::string name; size_t static_shared; int shared_limit = default_shared_limit; };
struct LoadedModule : Module { std::map<std::string, Function *> functions; };
struct Pool {                                    // of cudaMallocAsync: only its numbers
  int device;
  std::map<int, uint64_t> attributes = {{1, 1}, {2, 1}, {3, 1}};   // see cudaMemPoolAttr
  void use(int64_t bytes) {                      // 5, 6: reserved and its maximum; 7, 8: used
    attributes[7] += bytes, attributes[8] = std::max(attributes[8], attributes[7]);
    if (attributes[5] < attributes[7]) attributes[5] = rounded(), attributes[6] = std::max(attributes[6], attributes[5]);
  }
  uint64_t rounded() { return (attributes[7] + (32 << 20) - 1) >> 25 << 25; }
};

std::map<uintptr_t, Allocation> allocations;
std::map<uintptr_t, size_t> module_variables;
std::map<std::string, std::map<std::string, long>> statistics;
std::set<Stream *> streams;
std::set<Event *> events;
std::set<Capture *> captures;
std::vector<Stream *> legacy;
std::set<std::pair<int, int>> peers;
std::vector<Pool *> default_pools, current_pools;
char *arena, *arena_end, *cursor;
size_t used_memory, total_memory, alignment;
bool lazy, poisoning;
int device_count, sticky;
thread_local int current_device;
thread_local int last_error;
thread_local bool has_context;                   // since this thread's first call of the runtime

double now() { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Remembers the error for cudaGetLastError, like every runtime call does.
int result(int error) { if (error) last_error = error; return error; }

struct Setup {
  Setup() {
    device_count = setting("EMULATED_GPU_DEVICES", 1);
    total_memory = setting("EMULATED_GPU_MEMORY_MB", 8192) << 20;
    alignment = setting("EMULATED_GPU_ALIGN", 256);
    poisoning = setting("EMULATED_GPU_POISON", 1);
    const char *mode = getenv("EMULATED_GPU_MODE");
    lazy = mode && !strcmp(mode, "lazy");
    for (size_t size = 1ull << 43; size >= 1ull << 34 && !arena; size >>= 1) {
      void *p = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p != MAP_FAILED) arena = cursor = (char *)p, arena_end = arena + size;
    }
    for (int d = 0; d < device_count; d++) {
      legacy.push_back(new Stream{d, true, 0, 0, 0});
      default_pools.push_back(new Pool{d});
    }
    current_pools = default_pools;
  }
} setup;

// ---- memory ---------------------------------------------------------------------------------------

const std::pair<const uintptr_t, Allocation> *find(const void *p, bool or_before = false) {
  auto it = allocations.upper_bound((uintptr_t)p);
  if (it == allocations.begin()) return nullptr;
  --it;
  return or_before || (uintptr_t)p < it->first + std::max<size_t>(it->second.size, 1) ? &*it : nullptr;
}

// The end of an allocation lies on the end of a page that is followed by an inaccessible one. The
// address space is not used again before all of it was used, so that stale pointers fault.
int allocate(void **out, size_t size, Kind kind, Pool *pool = nullptr) {
  *out = nullptr;
  if (!size) return ok;
  size_t rounded = (size + alignment - 1) / alignment * alignment, mapped = (rounded + 4095) & ~4095ull;
  if (used_memory + mapped > total_memory) return memoryAllocation;
  bool wrapped = false;
  for (;;) {
    if (cursor + mapped + 4096 > arena_end) {
      if (wrapped) return memoryAllocation;
      wrapped = true, cursor = arena;
    }
    auto it = allocations.lower_bound((uintptr_t)cursor);
    if (it == allocations.end() || it->second.base >= cursor + mapped + 4096 || it->second.base < cursor) break;
    cursor = it->second.base + it->second.mapped + 4096;
  }
  char *base = cursor;
  if (mprotect(base, mapped, PROT_READ | PROT_WRITE)) return memoryAllocation;
  cursor += mapped + 4096;
  if (poisoning) memset(base, 0xFF, mapped);
  *out = base + mapped - rounded;
  allocations[(uintptr_t)*out] = {size, kind, current_device, base, mapped, pool};
  used_memory += mapped;
  if (pool) pool->use(size);
  count("memory", "allocations");
  count("memory", "bytes_allocated", size);
  return ok;
}

int release(void *p) {
  auto it = allocations.find((uintptr_t)p);
  if (it == allocations.end() || it->second.kind < device) return invalidValue;
  madvise(it->second.base, it->second.mapped, MADV_DONTNEED);
  mprotect(it->second.base, it->second.mapped, PROT_NONE);
  used_memory -= it->second.mapped;
  if (it->second.pool) it->second.pool->use(-(int64_t)it->second.size);
  allocations.erase(it);
  count("memory", "frees");
  return ok;
}

Kind kind_of(const void *p) {
  if (auto *a = find(p)) return a->second.kind;
  for (auto &v : module_variables) if ((uintptr_t)p >= v.first && (uintptr_t)p < v.first + v.second) return device;
  return (const char *)p >= arena && (const char *)p < arena_end ? device : host;
}

bool in_bounds(const void *p, size_t size) {
  if (kind_of(p) == host) return true;
  auto *a = find(p);
  if (a) return (uintptr_t)p + size <= a->first + a->second.size;
  return (const char *)p < arena || (const char *)p >= arena_end;   // module variables
}

// ---- streams --------------------------------------------------------------------------------------

Stream *stream_of(void *handle) {
  static thread_local std::vector<Stream *> per_thread;
  if (handle == nullptr || handle == (void *)1) return legacy[current_device];
  if (handle == (void *)2) {
    per_thread.resize(device_count);
    Stream *&s = per_thread[current_device];
    if (!s) streams.insert(s = new Stream{current_device, true, 0, 0, 2});
    return s;
  }
  return streams.count((Stream *)handle) ? (Stream *)handle : nullptr;
}

int invalidate(Capture *c, int error) { c->invalid = true; return error; }

// Errors of calls that synchronise or query something wider than one stream.
int no_capture(int error) {
  for (Capture *c : captures) invalidate(c, error);
  return captures.empty() ? ok : error;
}

// Calls such as cudaMalloc, which only a relaxed capture allows.
int unsafe_in_capture() {
  for (Capture *c : captures)
    if (c->mode == 0 || (c->mode == 1 && pthread_equal(c->thread, pthread_self()))) return invalidate(c, captureUnsupported);
  return ok;
}

int run(const std::function<int()> &work) {
  if (sticky) return sticky;
  int error = work();
  if (error) set_sticky(error);
  return error;
}

// Executes the queue of a stream up to a sequence number, and before each operation what it waits for.
int drain(Stream *s, uint64_t until) {
  while (s->finished < until && !s->queue.empty()) {
    Queued op = std::move(s->queue.front());
    s->queue.pop_front();
    for (auto &[other, sequence] : op.after) drain(other, sequence);
    run(op.work);
    s->finished++;
  }
  return sticky;
}
int drain(Stream *s) { return drain(s, s->issued); }
int drain_all() {
  for (Stream *s : legacy) drain(s);
  for (Stream *s : std::vector<Stream *>(streams.begin(), streams.end())) drain(s);
  return sticky;
}

int legacy_in_capture(Stream *s, bool only_ask = false) {
  if (s != legacy[s->device]) return ok;
  for (Capture *c : captures)
    for (Stream *joined : c->joined)
      if (joined->blocking && joined->device == s->device) return only_ask ? (int)captureImplicit : invalidate(c, captureImplicit);
  return ok;
}

using Waits = std::vector<std::pair<Stream *, uint64_t>>;   // until which operations of other streams

int submit(Stream *s, const Label &label, std::function<int()> work, Waits after = {}) {
  if (!s) return invalidResourceHandle;
  if (sticky) return sticky;
  if (s->capture) {
    if (s->capture->invalid) return captureInvalidated;
    auto &nodes = s->capture->graph->nodes;
    nodes.push_back({label, std::move(work), s->tail});
    s->tail = {(int)nodes.size() - 1};
    count("captured", label.name);
    return ok;
  }
  if (int error = legacy_in_capture(s)) return error;
  if (label.group) count(label.group, label.name);
  s->issued++;
  if (!lazy) {
    int error = run(work);
    s->finished++;
    return error;
  }
  // The legacy default stream waits for the blocking streams of its device, and they for it.
  if (s == legacy[s->device]) {
    for (Stream *other : streams)
      if (other->blocking && other->device == s->device) after.emplace_back(other, other->issued);
  } else if (s->blocking)
    after.emplace_back(legacy[s->device], legacy[s->device]->issued);
  s->queue.push_back({std::move(work), std::move(after)});
  return ok;
}

int synchronize_stream(Stream *s) {
  if (!s) return invalidResourceHandle;
  if (s->capture) return invalidate(s->capture, captureUnsupported);
  if (int error = legacy_in_capture(s)) return error;
  count("synchronizations", "stream");
  if (s == legacy[s->device])                    // it waits for the blocking streams, too
    for (Stream *other : std::vector<Stream *>(streams.begin(), streams.end()))
      if (other->blocking && other->device == s->device) drain(other);
  return drain(s);
}

const char *const kind_names[] = {"Host", "Host", "Device", "Device"};

int copy(void *to, const void *from, size_t size, int direction, Stream *s, bool wait) {
  if (!s) return invalidResourceHandle;
  if (sticky) return sticky;
  if (!size) return ok;
  if (direction < 0 || direction > 4) return invalidMemcpyDirection;
  Kind target = kind_of(to), source = kind_of(from);
  bool device_target = target >= device, device_source = source >= device;
  // Pinned and managed memory may stand for either side.
  if (direction != 4 && ((target == host && (direction == 1 || direction == 3)) || (target == device && (direction == 0 || direction == 2)) ||
                         (source == host && (direction == 2 || direction == 3)) || (source == device && (direction == 0 || direction == 1))))
    return invalidValue;
  if (!in_bounds(to, size) || !in_bounds(from, size)) return invalidValue;
  if (wait && s->capture) return invalidate(s->capture, captureUnsupported);
  std::string name = std::string(kind_names[source]) + "To" + kind_names[target];
  if (!s->capture) {
    count("memcpy_count", name);
    count("memcpy_bytes", name, size);
  }
  std::function<int()> work = [=] { memmove(to, from, size); return 0; };
  if (lazy && !s->capture && source == host && device_target) {   // staged: the caller may reuse its buffer
    auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + size);
    work = [=] { memcpy(to, staged->data(), size); return 0; };
  }
  Waits after;                                   // the default streams of the other devices
  for (const void *p : {(const void *)to, from})
    if (auto *a = find(p); a && a->second.kind >= device && a->second.device != s->device)
      after.emplace_back(legacy[a->second.device], legacy[a->second.device]->issued);
  if (int error = submit(s, {MEMCPY, "memcpy " + name}, work, after)) return error;
  if (s->capture) return ok;
  // The driver may wait for the stream before it stages pageable memory, and does so here in the statistics only.
  bool staged = !wait && source == host && device_target;
  bool done_on_return = target == host || (wait && !(device_target && device_source));
  if (staged || done_on_return) count("synchronizations", staged ? "memcpy_staged" : "memcpy");
  return done_on_return ? drain(s) : ok;
}

int fill(void *to, int value, size_t size, Stream *s) {
  if (!s) return invalidResourceHandle;
  if (kind_of(to) == host || !in_bounds(to, size)) return size ? invalidValue : ok;
  if (!s->capture) count("memset_bytes", "Device", size);
  return submit(s, {MEMSET, "memset"}, [=] { memset(to, value, size); return 0; });
}

std::function<int()> host_call(std::function<void()> f) {
  return [f] {
    int depth = device_lock.release();
    f();
    device_lock.acquire(depth);
    return 0;
  };
}

struct ErrorText { int code; const char *name, *text; };
const ErrorText error_texts[] = {
    {0, "Success", "no error"}, {1, "InvalidValue", "invalid argument"}, {2, "MemoryAllocation", "out of memory"},
    {9, "InvalidConfiguration", "invalid configuration argument"}, {21, "InvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {101, "InvalidDevice", "invalid device ordinal"}, {200, "InvalidKernelImage", "device kernel image is invalid"},
    {201, "DeviceUninitialized", "invalid device context"}, {217, "PeerAccessUnsupported", "peer access is not supported between these two devices"},
    {301, "FileNotFound", "file not found"},
    {400, "InvalidResourceHandle", "invalid resource handle"}, {401, "IllegalState", "the operation cannot be performed in the present state"},
    {500, "SymbolNotFound", "named symbol not found"}, {600, "NotReady", "device not ready"},
    {700, "IllegalAddress", "an illegal memory access was encountered"}, {701, "LaunchOutOfResources", "too many resources requested for launch"},
    {702, "LaunchTimeout", "the launch timed out and was terminated"}, {704, "PeerAccessAlreadyEnabled", "peer access is already enabled"},
    {705, "PeerAccessNotEnabled", "peer access has not been enabled"}, {710, "Assert", "device-side assert triggered"},
    {712, "HostMemoryAlreadyRegistered", "part or all of the requested memory range is already mapped"},
    {713, "HostMemoryNotRegistered", "pointer does not correspond to a registered memory region"},
    {716, "MisalignedAddress", "misaligned address"}, {719, "LaunchFailure", "unspecified launch failure"}, {801, "NotSupported", "operation not supported"},
    {900, "StreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {901, "StreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {902, "StreamCaptureMerge", "operation would result in a merge of separate capture sequences"},
    {903, "StreamCaptureUnmatched", "capture was not ended in the same stream as it began"},
    {904, "StreamCaptureUnjoined", "capturing stream has unjoined work"},
    {905, "StreamCaptureIsolation", "dependency created on uncaptured work in another stream"},
    {906, "StreamCaptureImplicit", "operation would make the legacy stream depend on a capturing blocking stream"},
    {907, "CapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
};
const ErrorText &error_text(int code) {
  static const ErrorText unknown{-1, "Unknown", "unrecognized error code"};
  for (auto &e : error_texts) if (e.code == code) return e;
  return unknown;
}

int set_captured(Stream *s, Event *e) {          // event record in a capture: only marks the position
  if (s->capture->invalid) return captureInvalidated;
  e->capture = s->capture;
  e->nodes = s->tail;
  return ok;
}

}  // namespace

// ---- for the other parts ----------------------------------------------------------------------------

long emu::setting(const char *variable, long otherwise) {
  const char *text = getenv(variable);
  return text && *text ? atol(text) : otherwise;
}
void emu::count(const char *group, const std::string &key, long n) { Guard g; statistics[group][key] += n; }
void emu::message(const std::string &text) { fprintf(stderr, "emulated GPU: %s\n", text.c_str()); }
void emu::set_sticky(int error) { sticky = error; }
int emu::enqueue(void *stream, const char *group, const std::string &name, std::function<int()> work) {
  Guard g;
  return submit(stream_of(stream), {KERNEL, name, group}, std::move(work));
}
void emu::allocation_in_graph(void *stream, bool begins) {
  Guard g;
  Stream *s = stream_of(stream);
  if (!s || !s->capture) return;
  if (begins) count("memory", "captured_cudaMallocAsync");
  submit(s, {begins ? MEM_ALLOC : MEM_FREE, begins ? "cudaMallocAsync" : "cudaFreeAsync"}, [] { return 0; });
}
int emu::synchronize(void *stream) { Guard g; return synchronize_stream(stream_of(stream)); }
std::string emu::outside(const void *p, size_t size) {
  if (!is_device_visible(p)) return describe_address(p);
  auto *a = find(p);
  if (!a && kind_of(p) != host && ((const char *)p < arena || (const char *)p >= arena_end)) return "";   // a module's variable
  if (!a) return describe_address(p);
  long beyond = (uintptr_t)p + size - (a->first + a->second.size);
  return beyond <= 0 ? "" : std::to_string(beyond) + " bytes lie past the end of the " + std::to_string(a->second.size) + "-byte allocation";
}
bool emu::is_device_visible(const void *p) {
  return ((const char *)p >= arena && (const char *)p <= arena_end) || kind_of(p) != host || find((const char *)p - 1);
}
std::string emu::describe_address(const void *p) {
  char text[160];
  auto *a = find(p, true);
  if ((const char *)p < arena || (const char *)p >= arena_end) snprintf(text, sizeof text, "%p is not device memory", p);
  else if (!a || (const char *)p > a->second.base + a->second.mapped + (1 << 20)) snprintf(text, sizeof text, "%p is not allocated (freed?)", p);
  else snprintf(text, sizeof text, "%p is %zu bytes past the end of the %zu-byte allocation at %p, or memory that was freed",
                p, (size_t)((uintptr_t)p - a->first - a->second.size), a->second.size, (void *)a->first);
  return text;
}

#define ENTER Guard guard_; has_context = true; if (sticky) return result(sticky);
#define SAFE_ONLY if (int e_ = unsafe_in_capture()) return result(e_);

extern "C" {

// ---- control from Python ------------------------------------------------------------------------------

void emu_reset_statistics() { Guard g; statistics.clear(); }
void emu_reset_device() {
  Guard g;
  sticky = last_error = 0;
  for (Capture *c : captures) for (Stream *s : c->joined) s->capture = nullptr;
  captures.clear();
  std::set<Stream *> all(streams);
  all.insert(legacy.begin(), legacy.end());
  for (Stream *s : all) s->queue.clear(), s->finished = s->issued;
}
void emu_set_lazy(int on) { Guard g; drain_all(); lazy = on; }
int emu_is_lazy() { return lazy; }
void emu_count(const char *group, const char *key, long n) { count(group, key, n); }
void emu_finish() {                              // at the end of the process: what nothing has waited for
  Guard g;
  if (!sticky && captures.empty() && drain_all())
    message(std::string("nothing waited for the work that ended in this error: ") + error_text(sticky).text);
}
int emu_fail_unsupported(const char *name) {
  message(std::string(name) + " is not emulated");
  return result(notSupported);
}
const char *emu_statistics() {                   // JSON
  Guard g;
  static std::string out;
  out = "{";
  for (auto &[group, keys] : statistics) {
    out += (out.size() > 1 ? ", \"" : "\"") + group + "\": {";
    bool first = true;
    for (auto &[key, n] : keys) {
      out += (first ? "\"" : ", \"");
      for (char c : key) { if (c == '"' || c == '\\') out += '\\'; out += c; }
      out += "\": " + std::to_string(n);
      first = false;
    }
    out += "}";
  }
  out += "}";
  return out.c_str();
}

// ---- runtime: errors, devices ---------------------------------------------------------------------------

const char *cudaGetErrorName(int e) { static thread_local std::string s; s = std::string("cudaError") + error_text(e).name; return e ? s.c_str() : "cudaSuccess"; }
const char *cudaGetErrorString(int e) { return error_text(e).text; }
int cudaPeekAtLastError() { return sticky ? sticky : last_error; }
int cudaGetLastError() { int e = cudaPeekAtLastError(); last_error = 0; return e; }
int cudaDriverGetVersion(int *v) { *v = EMU_CUDA_VERSION; return 0; }
int cuDriverGetVersion(int *v) { *v = EMU_CUDA_VERSION; return 0; }
int cudaRuntimeGetVersion(int *v) { *v = EMU_CUDA_VERSION; return 0; }
int cudaGetDevice(int *d) { *d = current_device; return 0; }
int cudaGetDeviceCount(int *n) { *n = device_count; return 0; }
int cudaSetDevice(int d) {
  if (d < 0 || d >= device_count) return result(invalidDevice);
  current_device = d;
  return result(sticky);
}
int cudaDeviceGetAttribute(int *value, int attribute, int d) {
  if (d < 0 || d >= device_count) return result(invalidDevice);
  auto it = device_attributes.find(attribute);
  if (it == device_attributes.end()) return attribute > 0 && attribute < 150 ? (*value = 0) : result(invalidValue);
  *value = it->second;
  return 0;
}
int cudaGetDeviceProperties(Properties *p, int d) {
  if (d < 0 || d >= device_count) return result(invalidDevice);
  fill_properties(p, d, total_memory);
  return 0;
}
int cudaGetDeviceProperties_v2(Properties *p, int d) { return cudaGetDeviceProperties(p, d); }
int cudaDeviceGetPCIBusId(char *out, int length, int d) {
  if (d < 0 || d >= device_count) return result(invalidDevice);
  snprintf(out, length, "0000:%02X:00.0", d + 1);
  return 0;
}
int cudaDeviceGetByPCIBusId(int *d, const char *id) {
  for (int i = 0; i < device_count; i++) {
    char text[16];
    cudaDeviceGetPCIBusId(text, sizeof text, i);
    if (!strcasecmp(text, id) || !strcasecmp(text + 5, id)) { *d = i; return 0; }
  }
  return result(invalidDevice);
}
int cudaDeviceSynchronize() {
  ENTER
  if (int e = no_capture(captureUnsupported)) return result(e);
  count("synchronizations", "device");
  return result(drain_all());
}
int cudaDeviceCanAccessPeer(int *yes, int a, int b) {
  if (std::max(a, b) >= device_count || std::min(a, b) < 0) return result(invalidDevice);
  *yes = a != b;
  return 0;
}
int cudaDeviceEnablePeerAccess(int peer, unsigned) {
  ENTER
  if (peer < 0 || peer >= device_count || peer == current_device) return result(invalidDevice);
  return peers.insert({current_device, peer}).second ? 0 : result(peerAccessAlreadyEnabled);
}
int cudaDeviceDisablePeerAccess(int peer) { ENTER return peers.erase({current_device, peer}) ? 0 : result(peerAccessNotEnabled); }
int cudaDeviceGetLimit(size_t *v, int limit) { *v = limit == 0 ? 1024 : limit == 1 ? 1 << 20 : limit == 2 ? 8 << 20 : 0; return 0; }
int cudaDeviceSetLimit(int, size_t) { return 0; }
int cudaProfilerStart() { return 0; }
int cudaProfilerStop() { return 0; }
// Only kernels compiled into CuPy's wheel are launched this way. Their callers do not look at the result,
// so the error is sticky.
int cudaLaunchKernel() { Guard g; return sticky = emu_fail_unsupported("a kernel compiled into CuPy's wheel (CUB, or a rare distribution of random.Generator)"); }
int cudaLaunchKernelExC() { return cudaLaunchKernel(); }

// ---- runtime: memory ----------------------------------------------------------------------------------

int cudaMalloc(void **p, size_t size) { ENTER SAFE_ONLY count("memory", "cudaMalloc"); return result(allocate(p, size, device)); }
int cudaMallocManaged(void **p, size_t size, unsigned) { ENTER SAFE_ONLY count("memory", "cudaMallocManaged"); return result(allocate(p, size, managed)); }
int cudaMallocFromPoolAsync(void **p, size_t size, Pool *pool, void *h) {
  ENTER
  Stream *s = stream_of(h);
  if (!s) return result(invalidResourceHandle);
  count("memory", s->capture ? "captured_cudaMallocAsync" : "cudaMallocAsync");
  if (s->capture)                                // the memory exists from now on, not from the launch on
    if (int e = submit(s, {MEM_ALLOC, "cudaMallocAsync"}, [] { return 0; })) return result(e);
  return result(allocate(p, size, device, pool));
}
int cudaMallocAsync(void **p, size_t size, void *s) { return cudaMallocFromPoolAsync(p, size, current_pools[current_device], s); }
int cudaFree(void *p) {
  ENTER SAFE_ONLY
  if (!p) return 0;
  if (captures.empty()) {                        // frees wait for the device
    count("synchronizations", "free");
    drain_all();
  }
  return result(release(p));
}
int cudaFreeAsync(void *p, void *stream) {
  ENTER
  auto it = allocations.find((uintptr_t)p);
  if (it == allocations.end()) return result(invalidValue);
  Stream *s = stream_of(stream);
  if (s && s->capture)                           // a replay may need it again: leave it
    return result(submit(s, {MEM_FREE, "cudaFreeAsync"}, [] { return 0; }));
  if (Pool *&pool = it->second.pool) pool->use(-(int64_t)it->second.size), pool = nullptr;
  return result(submit(s, {MEM_FREE, "cudaFreeAsync"}, [p] { return release(p); }));
}
int cudaHostAlloc(void **p, size_t size, unsigned) {
  ENTER SAFE_ONLY
  *p = nullptr;
  if (!size) return 0;
  size_t mapped = (size + 4095) & ~4095ull;
  char *base = (char *)mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return result(memoryAllocation);
  if (poisoning) memset(base, 0xFF, mapped);
  allocations[(uintptr_t)base] = {size, pinned, current_device, base, mapped, nullptr};
  *p = base;
  count("memory", "cudaHostAlloc");
  return 0;
}
int cudaMallocHost(void **p, size_t size) { return cudaHostAlloc(p, size, 0); }
int cudaFreeHost(void *p) {
  ENTER SAFE_ONLY
  if (!p) return 0;
  auto it = allocations.find((uintptr_t)p);
  if (it == allocations.end() || it->second.kind != pinned || !it->second.mapped) return result(invalidValue);
  if (captures.empty()) {
    count("synchronizations", "free");
    drain_all();
  }
  munmap(it->second.base, it->second.mapped);
  allocations.erase(it);
  return 0;
}
int cudaHostRegister(void *p, size_t size, unsigned) {
  ENTER
  if (find(p)) return result(hostMemoryAlreadyRegistered);
  allocations[(uintptr_t)p] = {size, pinned, current_device, (char *)p, 0, nullptr};
  count("memory", "cudaHostRegister");
  return 0;
}
int cudaHostUnregister(void *p) {
  ENTER
  auto it = allocations.find((uintptr_t)p);
  if (it == allocations.end() || it->second.mapped) return result(hostMemoryNotRegistered);
  allocations.erase(it);
  return 0;
}
int cudaMemGetInfo(size_t *available, size_t *total) { ENTER *available = total_memory - used_memory; *total = total_memory; return 0; }
int cudaMemcpy(void *to, const void *from, size_t n, int kind) { ENTER SAFE_ONLY return result(copy(to, from, n, kind, stream_of(nullptr), true)); }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *s) { ENTER return result(copy(to, from, n, kind, stream_of(s), false)); }
int cudaMemcpyPeer(void *to, int, const void *from, int, size_t n) { ENTER SAFE_ONLY return result(copy(to, from, n, 3, stream_of(nullptr), true)); }
int cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t n, void *s) { ENTER return result(copy(to, from, n, 3, stream_of(s), false)); }
int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, int kind, void *s) {
  ENTER
  for (size_t y = 0; y < height; y++)
    if (int e = copy((char *)to + y * to_pitch, (const char *)from + y * from_pitch, width, kind, stream_of(s), false)) return result(e);
  return 0;
}
int cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, int kind) {
  ENTER SAFE_ONLY
  if (int e = cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, height, kind, nullptr)) return e;
  return result(synchronize_stream(stream_of(nullptr)));
}
int cudaMemset(void *p, int value, size_t n) { ENTER SAFE_ONLY return result(fill(p, value, n, stream_of(nullptr))); }
int cudaMemsetAsync(void *p, int value, size_t n, void *s) { ENTER return result(fill(p, value, n, stream_of(s))); }
// Where is a device number in CUDA 12, and {type, number} in CUDA 13.
static int check_location(uint64_t where) {
  int d = EMU_CUDA_VERSION < 13000 ? (int)where : (where & 0xFFFFFFFF) == 1 ? (int)(where >> 32) : -1;
  return d < -1 || d >= device_count ? result(invalidDevice) : 0;
}
int cudaMemPrefetchAsync(const void *p, size_t, uint64_t where) { return kind_of(p) == managed ? check_location(where) : result(invalidValue); }
int cudaMemAdvise(const void *p, size_t, int advice, uint64_t where) { return kind_of(p) != managed || advice < 1 || advice > 6 ? result(invalidValue) : check_location(where); }
struct PointerAttributes { int type, device; void *device_pointer, *host_pointer; };
int cudaPointerGetAttributes(PointerAttributes *out, const void *p) {
  ENTER
  auto *a = find(p);
  *out = {0, -2, nullptr, nullptr};              // unregistered host memory
  if (a) *out = {a->second.kind, a->second.device, (void *)p, a->second.kind == device ? nullptr : (void *)p};
  else if (kind_of(p) == device && !((char *)p >= arena && (char *)p < arena_end)) *out = {device, 0, (void *)p, nullptr};
  return 0;
}

int cudaDeviceGetDefaultMemPool(void **pool, int d) { if (d >= device_count) return result(invalidDevice); *pool = default_pools[d]; return 0; }
int cudaDeviceGetMemPool(void **pool, int d) { if (d >= device_count) return result(invalidDevice); *pool = current_pools[d]; return 0; }
int cudaDeviceSetMemPool(int d, void *pool) { if (d >= device_count) return result(invalidDevice); current_pools[d] = (Pool *)pool; return 0; }
int cudaMemPoolCreate(void **pool, void *) { *pool = new Pool{current_device}; return 0; }
int cudaMemPoolDestroy(void *) { return 0; }
int cudaMemPoolTrimTo(Pool *pool, size_t keep) { Guard g; pool->attributes[5] = std::max<uint64_t>(pool->rounded(), std::min<uint64_t>(keep, pool->attributes[5])); return 0; }
int cudaMemPoolGetAttribute(Pool *pool, int attribute, void *value) {   // 1 to 3 are int, the others uint64
  Guard g;
  if (attribute <= 3) *(int *)value = pool->attributes[attribute];
  else *(uint64_t *)value = pool->attributes[attribute];
  return 0;
}
int cudaMemPoolSetAttribute(Pool *pool, int attribute, void *value) {
  Guard g;
  pool->attributes[attribute] = attribute <= 3 ? *(int *)value : attribute == 6 ? pool->attributes[5] : attribute == 8 ? pool->attributes[7] : *(uint64_t *)value;
  return 0;
}

// ---- runtime: streams and events ----------------------------------------------------------------------

int cudaStreamCreateWithPriority(void **out, unsigned flags, int priority) {
  ENTER
  static int next = 16;
  if (flags > 1) return result(invalidValue);
  auto *s = new Stream{current_device, flags == 0, flags, std::clamp(priority, -5, 0), next++};
  streams.insert(s);
  *out = s;
  return 0;
}
int cudaStreamCreateWithFlags(void **s, unsigned flags) { return cudaStreamCreateWithPriority(s, flags, 0); }
int cudaStreamCreate(void **s) { return cudaStreamCreateWithPriority(s, 0, 0); }
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0, *greatest = -5; return 0; }
int cudaStreamGetFlags(void *h, unsigned *flags) { ENTER Stream *s = stream_of(h); if (!s) return result(invalidResourceHandle); *flags = s->flags; return 0; }
int cudaStreamGetPriority(void *h, int *p) { ENTER Stream *s = stream_of(h); if (!s) return result(invalidResourceHandle); *p = s->priority; return 0; }
int cudaStreamDestroy(void *h) {                 // the struct stays: events may still refer to it
  ENTER
  if (!h || h <= (void *)2 || !stream_of(h)) return result(invalidResourceHandle);
  Stream *s = stream_of(h);
  if (s->capture) { s->capture->joined.erase(s); invalidate(s->capture, 0); }
  drain(s);
  streams.erase(s);
  return result(sticky);
}
int cudaStreamSynchronize(void *s) { ENTER return result(synchronize_stream(stream_of(s))); }
int cudaStreamQuery(void *h) {
  ENTER
  Stream *s = stream_of(h);
  if (!s) return result(invalidResourceHandle);
  if (s->capture) return result(invalidate(s->capture, captureUnsupported));
  if (int e = legacy_in_capture(s)) return result(e);
  count("queries", "stream");
  if (s->finished == s->issued) return 0;
  drain(s);                                      // so that polling ends
  return sticky ? result(sticky) : notReady;
}
int cudaLaunchHostFunc(void *s, void (*f)(void *), void *data) {
  ENTER
  return result(submit(stream_of(s), {HOST, "host function", "host_functions"}, host_call([=] { f(data); })));
}
int cudaStreamAddCallback(void *h, void (*f)(void *, int, void *), void *data, unsigned) {
  ENTER
  Stream *s = stream_of(h);
  if (s && s->capture) return result(invalidate(s->capture, captureUnsupported));
  return result(submit(s, {HOST, "callback", "host_functions"}, host_call([=] { f(h, 0, data); })));
}
int cudaEventCreateWithFlags(void **out, unsigned flags) {
  ENTER
  auto *e = new Event{flags, nullptr};
  events.insert(e);
  *out = e;
  return 0;
}
int cudaEventCreate(void **e) { return cudaEventCreateWithFlags(e, 0); }
int cudaEventDestroy(Event *e) { ENTER if (!events.erase(e)) return result(invalidResourceHandle); delete e; return 0; }
int cudaEventRecord(Event *e, void *h) {
  ENTER
  Stream *s = stream_of(h);
  if (!events.count(e) || !s) return result(invalidResourceHandle);
  if (s->capture) return result(set_captured(s, e));
  auto record = std::make_shared<Record>(Record{s, s->issued + 1});
  if (int error = submit(s, {HOST, "event record"}, [record] { record->time = now(); return 0; })) return result(error);
  e->record = record;
  e->capture = nullptr;
  return 0;
}
int cudaEventRecordWithFlags(Event *e, void *s, unsigned) { return cudaEventRecord(e, s); }
int cudaStreamWaitEvent(void *h, Event *e, unsigned) {
  ENTER
  Stream *s = stream_of(h);
  if (!events.count(e) || !s) return result(invalidResourceHandle);
  if (e->capture) {
    if (!captures.count(e->capture)) return 0;
    if (e->capture->invalid) return result(captureInvalidated);
    if (s->capture && s->capture != e->capture) { invalidate(s->capture, 0); return result(invalidate(e->capture, captureMerge)); }
    if (int error = legacy_in_capture(s)) return result(error);
    if (!s->capture) s->capture = e->capture, s->tail.clear(), e->capture->joined.insert(s);
    for (int n : e->nodes) if (std::find(s->tail.begin(), s->tail.end(), n) == s->tail.end()) s->tail.push_back(n);
    return 0;
  }
  if (s->capture) return result(e->record ? invalidate(s->capture, captureIsolation) : 0);
  if (!e->record) return 0;
  return result(submit(s, {HOST, "event wait"}, [] { return 0; }, {{e->record->stream, e->record->sequence}}));
}
int cudaEventQuery(Event *e) {
  ENTER
  if (!events.count(e)) return result(invalidResourceHandle);
  if (e->capture) return result(captures.count(e->capture) ? invalidate(e->capture, capturedEvent) : capturedEvent);
  if (int error = unsafe_in_capture()) return result(error);
  count("queries", "event");
  if (!e->record || e->record->stream->finished >= e->record->sequence) return 0;
  drain(e->record->stream, e->record->sequence);
  return sticky ? result(sticky) : notReady;
}
int cudaEventSynchronize(Event *e) {
  ENTER
  if (!events.count(e)) return result(invalidResourceHandle);
  if (e->capture) return result(captures.count(e->capture) ? invalidate(e->capture, capturedEvent) : capturedEvent);
  count("synchronizations", "event");
  return e->record ? result(drain(e->record->stream, e->record->sequence)) : 0;
}
int cudaEventElapsedTime(float *ms, Event *a, Event *b) {
  ENTER
  if (!events.count(a) || !events.count(b) || !a->record || !b->record || (a->flags | b->flags) & 2) return result(invalidResourceHandle);
  if (a->record->time < 0 || b->record->time < 0) return result(notReady);
  *ms = std::max(1e-6, b->record->time - a->record->time);
  return 0;
}
int cudaEventElapsedTime_v2(float *ms, Event *a, Event *b) { return cudaEventElapsedTime(ms, a, b); }

// ---- runtime: capture and graphs ------------------------------------------------------------------------

int cudaStreamBeginCapture(void *h, int mode) {
  ENTER
  Stream *s = stream_of(h);
  if (!s) return result(invalidResourceHandle);
  if (s == legacy[s->device]) return result(captureUnsupported);
  if (mode < 0 || mode > 2) return result(invalidValue);
  if (s->capture) return result(invalidate(s->capture, illegalState));
  s->capture = new Capture{s, new Graph, mode, pthread_self()};   // kept: events may still refer to it
  s->capture->joined.insert(s);
  s->tail.clear();
  captures.insert(s->capture);
  return 0;
}
int cudaStreamEndCapture(void *h, Graph **out) {
  ENTER
  *out = nullptr;
  Stream *s = stream_of(h);
  if (!s) return result(invalidResourceHandle);
  Capture *c = s->capture;
  if (!c) return result(illegalState);
  if (c->origin != s) return result(invalidate(c, captureUnmatched));
  std::set<int> reached(s->tail.begin(), s->tail.end());
  for (auto it = reached.rbegin(); it != reached.rend(); ++it)
    reached.insert(c->graph->nodes[*it].after.begin(), c->graph->nodes[*it].after.end());
  bool joined = true;
  for (Stream *other : c->joined) {
    for (int n : other->tail) joined &= reached.count(n) == 1;
    other->capture = nullptr;
    other->tail.clear();
  }
  captures.erase(c);
  if (c->invalid) return result(captureInvalidated);
  if (!joined) return result(captureUnjoined);
  *out = c->graph;
  return 0;
}
int cudaStreamIsCapturing(void *h, int *status) {
  ENTER
  Stream *s = stream_of(h);
  if (!s) return result(invalidResourceHandle);
  if (int e = legacy_in_capture(s, true)) return result(e);
  *status = !s->capture ? 0 : s->capture->invalid ? 2 : 1;
  return 0;
}
int cudaGraphInstantiate(Graph **exec, Graph *graph, unsigned long long) { Guard g; count("graphs", "instantiated"); *exec = new Graph(*graph); return 0; }
int cudaGraphInstantiateWithFlags(Graph **exec, Graph *graph, unsigned long long f) { return cudaGraphInstantiate(exec, graph, f); }
int cudaGraphDestroy(Graph *graph) { ENTER delete graph; return 0; }
int cudaGraphExecDestroy(Graph *exec) { ENTER if (captures.empty()) drain_all(); delete exec; return 0; }
int cudaGraphUpload(Graph *, void *) { count("graphs", "uploads"); return 0; }
int cudaGraphLaunch(Graph *exec, void *h) {
  ENTER
  count("graphs", "launches");
  for (auto &node : exec->nodes) count("graph_nodes", node.label.name);
  return result(submit(stream_of(h), {KERNEL, "graph"}, [exec] {
    // Any order that keeps the edges is legal. The lazy mode runs late nodes first.
    size_t n = exec->nodes.size(), left = n;
    std::vector<bool> done(n);
    auto ready = [&](size_t i) {
      for (int before : exec->nodes[i].after) if (!done[before]) return false;
      return !done[i];
    };
    for (size_t i = 0; i < n && !lazy; i++, left--) if (int e = exec->nodes[i].work()) return e;
    while (left)
      for (size_t i = n; i-- > 0;)
        if (ready(i)) {
          if (int e = exec->nodes[i].work()) return e;
          done[i] = true, left--;
          break;
        }
    return 0;
  }));
}
// The labels are as those of NVIDIA's driver: with the flag Verbose the kind of every node, otherwise that of all but kernels.
int cudaGraphDebugDotPrint(Graph *graph, const char *path, unsigned flags) {
  FILE *f = fopen(path, "w");
  if (!f) return result(invalidValue);
  fputs("digraph dot {\nsubgraph cluster_1 {\nlabel=\"graph_1\" graph[style=\"dashed\"];\n", f);
  for (size_t i = 0; i < graph->nodes.size(); i++) {
    auto &[kind, name, group] = graph->nodes[i].label;
    const char *style = kind == KERNEL ? "bold" : "solid";
    if (flags & 1) fprintf(f, "\"graph_1_node_%zu\"[style=\"%s\" shape=\"record\" label=\"{%s\n| {ID | %zu | %s}\n}\"];\n", i, style, node_kinds[kind], i, name.c_str());
    else if (kind == KERNEL) fprintf(f, "\"graph_1_node_%zu\"[style=\"bold\" shape=\"octagon\" label=\"%zu\n%s\n\"];\n", i, i, name.c_str());
    else fprintf(f, "\"graph_1_node_%zu\"[style=\"solid\" shape=\"rectangle\" label=\"%zu\n%s\n(%s)\n\"];\n", i, i, node_kinds[kind], name.c_str());
  }
  for (size_t i = 0; i < graph->nodes.size(); i++)
    for (int before : graph->nodes[i].after) fprintf(f, "\"graph_1_node_%d\" -> \"graph_1_node_%zu\"%s;\n", before, i, flags & 1 ? " [headlabel=0]" : "");
  fputs("}\n}\n", f);
  fclose(f);
  return 0;
}

// ---- driver -----------------------------------------------------------------------------------------------

int cuGetErrorName(int e, const char **out) {
  static thread_local std::string s;
  s = "CUDA_ERROR";
  for (const char *c = error_text(e).name; *c; c++) { if (isupper(*c)) s += '_'; s += toupper(*c); }
  if (e == invalidImage) s = "CUDA_ERROR_INVALID_IMAGE";
  if (e == symbolNotFound) s = "CUDA_ERROR_NOT_FOUND";
  if (e == invalidResourceHandle) s = "CUDA_ERROR_INVALID_HANDLE";
  if (e == memoryAllocation) s = "CUDA_ERROR_OUT_OF_MEMORY";
  *out = e ? s.c_str() : "CUDA_SUCCESS";
  return 0;
}
int cuGetErrorString(int e, const char **out) { *out = error_text(e).text; return 0; }

// One context per device; its handle is its number plus one, shifted to look like a pointer.
static void *context_of(int d) { return (void *)((d + 1ull) << 12); }
int cuCtxGetCurrent(void **c) { *c = has_context ? context_of(current_device) : nullptr; return 0; }
int cuCtxSetCurrent(void *c) {
  has_context = c != nullptr;
  if (c) current_device = ((uintptr_t)c >> 12) - 1;
  return 0;
}
int cuCtxGetDevice(int *d) { *d = current_device; return 0; }
int cuCtxCreate_v2(void **c, unsigned, int d) { return cuCtxSetCurrent(*c = context_of(d)); }
int cuCtxDestroy_v2(void *) { return 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuStreamGetCtx(void *h, void **c) { ENTER Stream *s = stream_of(h); if (!s) return invalidResourceHandle; *c = context_of(s->device); return 0; }

int cuModuleLoadData(LoadedModule **out, const void *image) {
  ENTER
  auto *header = (const ElfW(Ehdr) *)image;
  if (memcmp(image, ELFMAG, SELFMAG) || header->e_machine != EM_X86_64) return invalidImage;
  size_t size = header->e_shoff + (size_t)header->e_shnum * header->e_shentsize;   // the section table comes last
  const char *tmp = getenv("TMPDIR");
  std::string path = std::string(tmp ? tmp : "/tmp") + "/kernel-XXXXXX.so";
  int fd = mkstemps(path.data(), 3);             // dlopen needs a name that it has not seen yet
  bool written = fd >= 0 && write(fd, image, size) == (ssize_t)size;
  void *handle = written ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (!handle) message(std::string("cannot load a kernel: ") + dlerror());
  close(fd);
  unlink(path.c_str());
  if (!handle) return invalidImage;
  auto *m = new LoadedModule;
  m->handle = handle;
  m->entries = (const KernelEntry *)dlsym(handle, "emu_kernels");
  m->dynamic_shared = (char *(*)())dlsym(handle, "emu_dynamic_shared");
  if (auto *capacity = (size_t *)dlsym(handle, "emu_dynamic_capacity")) m->dynamic_capacity = *capacity;
  m->static_shared = (const size_t *)dlsym(handle, "emu_static_shared");
  link_map *map;
  dlinfo(handle, RTLD_DI_LINKMAP, &map);
  m->base = (const void *)map->l_addr;
  if (!m->entries) return invalidImage;
  *out = m;
  count("modules", "loaded");
  return 0;
}
int cuModuleLoad(LoadedModule **out, const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) return fileNotFound;
  std::vector<char> image;
  for (int c; (c = fgetc(f)) != EOF;) image.push_back(c);
  fclose(f);
  image.resize(image.size() + 64);
  return cuModuleLoadData(out, image.data());
}
int cuModuleUnload(LoadedModule *m) {            // queued work may still use the code, so it stays mapped
  ENTER
  if (captures.empty()) drain_all();
  return 0;
}
int cuModuleGetFunction(Function **out, LoadedModule *m, const char *name) {
  ENTER
  Function *&f = m->functions[name];
  for (const KernelEntry *k = m->entries; !f && k->name; k++)
    if (k->run && !strcmp(k->name, name)) f = new Function{m, k, name, m->static_shared ? m->static_shared[k - m->entries] : 0};
  if (!f) return symbolNotFound;
  *out = f;
  return 0;
}
int cuModuleGetGlobal_v2(void **out, size_t *size, LoadedModule *m, const char *name) {
  ENTER
  const void *p = nullptr;
  for (const KernelEntry *k = m->entries; k->name; k++) if (!k->run && !strcmp(k->name, name)) p = k->address;
  if (!p) p = dlsym(m->handle, name);
  if (!p) return symbolNotFound;
  Dl_info info;
  const ElfW(Sym) *symbol = nullptr;
  dladdr1(p, &info, (void **)&symbol, RTLD_DL_SYMENT);
  size_t bytes = symbol ? symbol->st_size : 0;
  module_variables[(uintptr_t)p] = bytes;
  if (out) *out = (void *)p;
  if (size) *size = bytes;
  return 0;
}
int cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *h, void **params, void **) {
  ENTER
  if (!f) return invalidResourceHandle;
  if (!gx || !gy || !gz || !bx || !by || !bz || gx > 0x7FFFFFFF || gy > 65535 || gz > 65535 || bx > 1024 || by > 1024 ||
      bz > 64 || (uint64_t)bx * by * bz > 1024 || shared + f->static_shared > (size_t)f->shared_limit)
    return invalidValue;
  Launch launch{f->name, f->module, f->kernel, {gx, gy, gz}, {bx, by, bz}, shared, {}, {}};
  size_t end = 0;
  for (int i = 0; i < f->kernel->count; i++) {
    const Param &p = f->kernel->params[i];
    end = (end + p.align - 1) / p.align * p.align;
    launch.offsets.push_back(end);
    end += p.size;
  }
  launch.storage.resize(end + 64);
  size_t shift = -(uintptr_t)launch.storage.data() & 63;   // the storage moves with the launch and keeps its address
  for (int i = 0; i < f->kernel->count; i++)
    memcpy(launch.storage.data() + (launch.offsets[i] += shift), params[i], f->kernel->params[i].size);
  auto shared_launch = std::make_shared<Launch>(std::move(launch));
  return submit(stream_of(h), {KERNEL, f->name, "launches"}, [shared_launch] { return run_kernel(*shared_launch); });
}
int cuLaunchCooperativeKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                              unsigned shared, void *h, void **params) {
  if ((uint64_t)gx * gy * gz > 132 * 2) return 720;       // does not fit on the device at once
  return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, h, params, nullptr);
}
int cuFuncGetAttribute(int *v, int attribute, Function *f) {
  switch (attribute) {
    case 0: *v = 1024; return 0;                          // threads per block
    case 1: *v = f->static_shared; return 0;
    case 2: case 3: *v = 0; return 0;                     // constant, local memory
    case 4: *v = 32; return 0;                            // registers
    case 5: case 6: *v = 90; return 0;                    // PTX, binary version
    case 7: *v = 0; return 0;
    case 8: *v = f->shared_limit - f->static_shared; return 0;
    case 9: *v = -1; return 0;                            // carveout
    default: return invalidValue;
  }
}
int cuFuncSetAttribute(Function *f, int attribute, int value) {
  if (attribute == 8) {
    if (value < 0 || value + f->static_shared > max_shared) return invalidValue;
    f->shared_limit = std::max<int>(value + f->static_shared, default_shared_limit);
    return 0;
  }
  return attribute == 9 && value >= -1 && value <= 100 ? 0 : invalidValue;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, Function *f, int block, size_t shared) {
  if (block < 1 || block > 1024) return invalidValue;
  size_t per_block = shared + f->static_shared + 1024;
  *n = std::min<size_t>({32, size_t(2048 / ((block + 31) / 32 * 32)), 233472 / per_block});
  return 0;
}
int cuOccupancyMaxPotentialBlockSize(int *grid, int *block, Function *, void *, size_t, int limit) {
  *block = limit > 0 ? std::min(limit, 1024) : 1024;
  *grid = 132 * (2048 / *block);
  return 0;
}
int cuLinkCreate_v2() { return emu_fail_unsupported("the device linker"); }
int cuLinkAddData_v2() { return notSupported; }
int cuLinkAddFile_v2() { return notSupported; }
int cuLinkComplete() { return notSupported; }
int cuLinkDestroy() { return notSupported; }

}
