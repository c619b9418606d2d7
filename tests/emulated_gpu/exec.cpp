// Runs a kernel launch on the CPU: blocks one after another, the threads of a block as fibers.
//
// A worker fiber runs unstarted threads in a plain loop for as long as none of them waits, so kernels
// without synchronisation never switch stacks. When a thread waits, its fiber is parked and another
// fiber goes on with the unstarted threads.
#include "core.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <link.h>
#include <cstdio>
#include <cstring>
#include <numeric>

using namespace emu;

extern "C" {
Dim emu_threadIdx, emu_blockIdx, emu_blockDim, emu_gridDim;   // read by kernels
void emu_switch(void **save, void *resume);
extern char emu_switch_resume[];
}
// Saves the callee-saved registers on the current stack and continues on another one.
asm(R"(
.text
.globl emu_switch, emu_switch_resume
emu_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
emu_switch_resume:
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");

namespace {

constexpr size_t stack_size = 256 << 10, page = 4096;
constexpr int poison = 0xFF;                     // NaN as float, -1 as int

struct Fiber { void *sp; char *stack; int thread; };

enum Op { SYNC, SHUFFLE, BALLOT, MATCH };

struct Warp {
  unsigned present, exited, arrived;             // lane masks
  unsigned mask[32]; Op op[32]; int source[32]; uint64_t value[32], result[32]; Fiber *fiber[32];
};

struct State {                                   // of the block that runs now
  const Launch *launch;
  void *args[256];
  int size, started, alive;
  std::vector<Fiber *> ready, barrier;
  int votes, nonzero, vote_result[2];
  Warp warp[32];
  unsigned stride, offset;                       // permutation of the threads
  int error; std::string why;
} S;

Fiber *current;
void *scheduler_sp;
std::vector<Fiber *> idle, all;
uint64_t rng;
volatile sig_atomic_t in_kernel;
pthread_t kernel_thread;

uint64_t random64() { rng ^= rng << 13; rng ^= rng >> 7; rng ^= rng << 17; return rng; }

// A random i -> (i * stride + offset) % n, which visits every value once.
void permutation(unsigned n, bool shuffle, unsigned &stride, unsigned &offset) {
  stride = 1, offset = 0;
  if (!shuffle || n < 2) return;
  do stride = 1 + random64() % (n - 1); while (std::gcd(stride, n) != 1);
  offset = random64() % n;
}

void select_thread(int t) {
  unsigned x = emu_blockDim.x, y = emu_blockDim.y;
  emu_threadIdx = (unsigned)S.size == x ? Dim{(unsigned)t, 0, 0} : Dim{t % x, t / x % y, t / (x * y)};
}

void park() {
  Fiber *f = current;
  emu_switch(&f->sp, scheduler_sp);
  select_thread(f->thread);
}

void release_barrier() {
  S.vote_result[0] = S.votes; S.vote_result[1] = S.nonzero;
  S.votes = S.nonzero = 0;
  S.ready.insert(S.ready.end(), S.barrier.begin(), S.barrier.end());
  S.barrier.clear();
}

// Completes every collective whose lanes are all here: lanes of the mask that have exited or never
// existed do not count.
void release_warp(Warp &w) {
  for (unsigned todo = w.arrived; todo;) {
    int first = __builtin_ctz(todo);
    unsigned named = w.mask[first], group = 0;
    for (int i = 0; i < 32; i++)
      if (w.arrived >> i & 1 && w.mask[i] == named && w.op[i] == w.op[first]) group |= 1u << i;
    todo &= ~group;
    if ((named & w.present & ~w.exited) & ~group) continue;
    unsigned ballot = 0;
    for (int i = 0; i < 32; i++) if (group >> i & 1 && w.value[i]) ballot |= 1u << i;
    for (int i = 0; i < 32; i++) {
      if (!(group >> i & 1)) continue;
      if (w.op[i] == SHUFFLE)   // reading a lane that does not take part is undefined: make it show
        w.result[i] = group >> w.source[i] & 1 ? w.value[w.source[i]] : ~0ull;
      else if (w.op[i] == BALLOT) w.result[i] = ballot;
      else if (w.op[i] == MATCH) {
        w.result[i] = 0;
        for (int j = 0; j < 32; j++) if (group >> j & 1 && w.value[j] == w.value[i]) w.result[i] |= 1u << j;
      }
      S.ready.push_back(w.fiber[i]);
    }
    w.arrived &= ~group;
  }
}

void thread_finished(int t) {
  Warp &w = S.warp[t / 32];
  w.exited |= 1u << t % 32;
  S.alive--;
  if (w.arrived) release_warp(w);
  if (!S.barrier.empty() && (int)S.barrier.size() == S.alive) release_barrier();
}

void fiber_main() {
  for (;;) {
    while (S.started < S.size) {
      int t = ((uint64_t)S.started++ * S.stride + S.offset) % S.size;
      current->thread = t;
      select_thread(t);
      S.launch->kernel->run(S.args);
      thread_finished(current->thread);
    }
    idle.push_back(current);
    emu_switch(&current->sp, scheduler_sp);
  }
}

void rewind_fiber(Fiber *f) {
  void **top = (void **)(f->stack + page + stack_size);
  top[-1] = nullptr;
  top[-2] = (void *)fiber_main;
  memset(top - 8, 0, 6 * sizeof(void *));
  f->sp = top - 8;
}

Fiber *idle_fiber() {
  if (idle.empty()) {
    char *stack = (char *)mmap(nullptr, page + stack_size, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mprotect(stack, page, PROT_NONE);            // catches an overflow
    all.push_back(new Fiber{nullptr, stack, 0});
    rewind_fiber(all.back());
    return all.back();
  }
  Fiber *f = idle.back();
  idle.pop_back();
  return f;
}

std::string text(Dim d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

void run_block(bool shuffle) {
  S.started = 0, S.alive = S.size, S.votes = S.nonzero = 0;
  S.ready.clear(), S.barrier.clear();
  permutation(S.size, shuffle, S.stride, S.offset);
  for (int w = 0; w * 32 < S.size; w++) {
    int lanes = std::min(32, S.size - w * 32);
    S.warp[w].present = lanes == 32 ? ~0u : (1u << lanes) - 1;
    S.warp[w].exited = S.warp[w].arrived = 0;
  }
  while (S.alive) {
    if (S.started < S.size) current = idle_fiber();
    else if (!S.ready.empty()) {
      std::swap(S.ready[shuffle ? random64() % S.ready.size() : 0], S.ready.back());
      current = S.ready.back();
      S.ready.pop_back();
    } else {
      size_t collective = 0;
      for (int w = 0; w * 32 < S.size; w++) collective += __builtin_popcount(S.warp[w].arrived);
      S.error = launchTimeout;
      S.why = "deadlock: " + std::to_string(S.barrier.size()) + " threads wait in __syncthreads and " +
              std::to_string(collective) + " in warp operations that the other threads never reach";
    }
    if (!S.error) emu_switch(&scheduler_sp, current->sp);
    if (S.error) return;
  }
}

// A fault inside a kernel becomes a failed launch: continue in the scheduler instead of the fiber.
const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL}, signal_count = 4;
struct sigaction previous[signal_count];
void *fault_address;

void on_fault(int signal, siginfo_t *info, void *context) {
  if (!in_kernel || !pthread_equal(pthread_self(), kernel_thread)) {
    for (int i = 0; i < signal_count; i++) sigaction(signals[i], &previous[i], nullptr);
    return;                                      // not ours: happens again under the old handler
  }
  fault_address = info->si_addr;
  // SIGILL: g++ checks the alignment of accesses and traps (see flags in compiler.py)
  S.error = signal == SIGFPE ? launchFailure : signal == SIGILL ? misalignedAddress : illegalAddress;
  auto &registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  registers[REG_RSP] = (greg_t)scheduler_sp;
  registers[REG_RIP] = (greg_t)emu_switch_resume;
}

void catch_faults(bool on) {
  static thread_local char *alternate;
  if (!on) {
    for (int i = 0; i < signal_count; i++) sigaction(signals[i], &previous[i], nullptr);
    return;
  }
  if (!alternate) alternate = new char[64 << 10];
  stack_t stack{alternate, 0, 64 << 10};
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < signal_count; i++) sigaction(signals[i], &action, &previous[i]);
}

struct TlsQuery { const void *base; char *data; size_t size; };

int find_tls(dl_phdr_info *info, size_t, void *out) {
  auto *q = (TlsQuery *)out;
  if ((const void *)info->dlpi_addr != q->base) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_TLS) q->size = info->dlpi_phdr[i].p_memsz;
  q->data = (char *)info->dlpi_tls_data;
  return 1;
}

}  // namespace

void emu::fault(int error, std::string why) {    // abandons the block; its fibers are recycled
  S.error = error;
  S.why = std::move(why);
  void *unused;
  emu_switch(&unused, scheduler_sp);
  __builtin_unreachable();
}

int emu::run_kernel(const Launch &launch) {
  static long seed = setting("EMULATED_GPU_SEED", 1);
  static std::vector<char> saved;
  S.launch = &launch;
  S.size = launch.block.x * launch.block.y * launch.block.z;
  S.error = 0;
  for (size_t i = 0; i < launch.offsets.size(); i++) S.args[i] = (char *)launch.storage.data() + launch.offsets[i];
  for (int i = 0; i < launch.kernel->count; i++) {
    void *p = *(void **)S.args[i];
    if (launch.kernel->params[i].is_pointer && p && !is_device_visible(p)) {
      message("kernel '" + launch.name + "': argument " + std::to_string(i) + " points to host memory");
      return illegalAddress;
    }
  }
  // __shared__ variables are thread-local variables of the module, so that of this OS thread is the
  // shared memory of the block.
  char *dynamic = launch.module->dynamic_shared ? launch.module->dynamic_shared() : nullptr;
  TlsQuery tls{launch.module->base, nullptr, 0};
  if (dynamic) dl_iterate_phdr(find_tls, &tls);
  size_t requested = std::min(launch.shared, launch.module->dynamic_capacity);

  rng = 0x9E3779B97F4A7C15ull * (uint64_t)(seed + 1);
  emu_blockDim = launch.block, emu_gridDim = launch.grid;
  uint64_t blocks = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
  unsigned stride = 1, offset = 0;
  if (blocks < UINT32_MAX) permutation(blocks, seed, stride, offset);
  kernel_thread = pthread_self();
  catch_faults(true);
  in_kernel = 1;
  for (uint64_t i = 0; i < blocks && !S.error; i++) {
    uint64_t b = (i * stride + offset) % blocks;
    emu_blockIdx = {unsigned(b % launch.grid.x), unsigned(b / launch.grid.x % launch.grid.y),
                    unsigned(b / launch.grid.x / launch.grid.y)};
    if (dynamic) {
      char *after = dynamic + launch.module->dynamic_capacity + canary;
      memset(tls.data, poison, dynamic - tls.data);
      memset(dynamic, poison, requested + canary);
      memset(after, poison, tls.data + tls.size - after);
    }
    run_block(seed != 0);
    for (size_t j = 0; dynamic && !S.error && j < canary; j++)
      if ((unsigned char)dynamic[requested + j] != poison) {
        S.error = illegalAddress;
        S.why = "write " + std::to_string(j) + " bytes past the end of the " + std::to_string(requested) +
                " bytes of dynamic shared memory";
      }
  }
  in_kernel = 0;
  catch_faults(false);
  if (!S.error) return ok;

  std::string where = "kernel '" + launch.name + "', block " + text(emu_blockIdx) + ", thread " + text(emu_threadIdx);
  if (S.why.empty()) {
    bool overflow = false;
    for (Fiber *f : all) overflow |= (char *)fault_address >= f->stack && (char *)fault_address < f->stack + page;
    S.why = S.error == launchFailure ? "integer division by zero (a GPU would give a meaningless number)"
            : S.error == misalignedAddress ? "misaligned address: the pointer is not a multiple of what its type needs"
            : overflow ? "local memory (stack) overflow"
                       : "illegal address: " + describe_address(fault_address);
  }
  message(where + ": " + S.why);
  S.why.clear();
  idle = all;
  for (Fiber *f : all) rewind_fiber(f);
  return S.error;
}

int emu::run_guarded(const std::string &name, const std::function<void()> &work) {
  static const Module module;
  static const KernelEntry entry{"", [](void **p) { (**(const std::function<void()> **)p[0])(); }, nullptr, 0, nullptr};
  Launch launch{name, &module, &entry, {1, 1, 1}, {1, 1, 1}, 0, std::vector<char>(sizeof(void *)), {0}};
  const void *pointer = &work;
  memcpy(launch.storage.data(), &pointer, sizeof pointer);
  return run_kernel(launch);
}

// ---- called by kernels -------------------------------------------------------------------------

extern "C" {

// kind 0: number of threads with a true vote, 1: any, 2: all
int emu_syncthreads(int vote, int kind) {
  S.votes += vote != 0, S.nonzero |= vote == 0;
  if ((int)S.barrier.size() + 1 == S.alive) {
    S.ready.push_back(current);
    release_barrier();
  } else
    S.barrier.push_back(current);
  park();
  return kind == 0 ? S.vote_result[0] : kind == 1 ? S.vote_result[0] > 0 : !S.vote_result[1];
}

uint64_t emu_warp(int op, unsigned mask, uint64_t value, int source) {
  int t = current->thread, lane = t % 32;
  Warp &w = S.warp[t / 32];
  if (!(mask >> lane & 1)) fault(launchFailure, "a warp operation's mask does not name the calling lane");
  w.mask[lane] = mask, w.op[lane] = (Op)op, w.value[lane] = value, w.source[lane] = source & 31;
  w.fiber[lane] = current;
  w.arrived |= 1u << lane;
  unsigned needed = mask & w.present & ~w.exited;
  if ((w.arrived & needed) == needed) release_warp(w);
  park();
  return w.result[lane];
}

unsigned emu_activemask() {
  int t = current->thread;
  return 1u << t % 32;                           // a legal answer: no convergence is promised
}

void emu_trap() { fault(launchFailure, "__trap()"); }
void emu_assert(const char *what, const char *file, int line) {
  fault(assertTriggered, std::string("assertion failed: ") + what + " at " + file + ":" + std::to_string(line));
}
void emu_unsupported(const char *what) { fault(notSupported, std::string(what) + " is not emulated"); }

}
