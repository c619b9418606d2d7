// Shared by the parts of the emulated device.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace emu {

// CUDA runtime and driver error codes used here (both APIs share the numbers).
enum Error {
  ok = 0, invalidValue = 1, memoryAllocation = 2, invalidConfiguration = 9, invalidMemcpyDirection = 21,
  invalidDevice = 101, invalidImage = 200, invalidContext = 201, peerAccessUnsupported = 217, fileNotFound = 301,
  invalidResourceHandle = 400, illegalState = 401, symbolNotFound = 500, notReady = 600,
  illegalAddress = 700, launchOutOfResources = 701, launchTimeout = 702, peerAccessAlreadyEnabled = 704,
  peerAccessNotEnabled = 705, assertTriggered = 710, hostMemoryAlreadyRegistered = 712,
  hostMemoryNotRegistered = 713, misalignedAddress = 716, launchFailure = 719, notSupported = 801, captureUnsupported = 900,
  captureInvalidated = 901, captureMerge = 902, captureUnmatched = 903, captureUnjoined = 904,
  captureIsolation = 905, captureImplicit = 906, capturedEvent = 907,
};

struct Dim { unsigned x, y, z; };

// What a compiled kernel module exports (see footer in compiler.py). An entry whose run is
// null is a variable named by a name expression.
struct Param { unsigned size, align, is_pointer; };
struct KernelEntry { const char *name; void (*run)(void **); const void *address; int count; const Param *params; };

struct Module {
  void *handle = nullptr;
  const KernelEntry *entries = nullptr;
  const void *base = nullptr;                    // load address, to find the thread-local block
  char *(*dynamic_shared)() = nullptr;           // where dynamic shared memory starts; null: no __shared__
  const size_t *static_shared = nullptr;         // of each entry; null: no __shared__
  size_t dynamic_capacity = 0;
};

struct Launch {
  std::string name;
  const Module *module;
  const KernelEntry *kernel;
  Dim grid, block;
  size_t shared;
  std::vector<char> storage;                     // argument values, copied at launch like CUDA does
  std::vector<size_t> offsets;
};

constexpr size_t max_shared = 232448, default_shared_limit = 49152, canary = 256;

// exec.cpp
int run_kernel(const Launch &);                  // an Error; a fault is also reported on stderr
int run_guarded(const std::string &name, const std::function<void()> &);   // a library's work, the same way
[[noreturn]] void fault(int error, std::string why);                       // ends what these two run
// device.cpp
std::string describe_address(const void *);      // "16 bytes past the end of a 512-byte allocation"
std::string outside(const void *, size_t);       // like it, if the bytes leave their allocation; "" if they do not
bool is_device_visible(const void *);
void set_sticky(int error);
void message(const std::string &);
long setting(const char *variable, long otherwise);
void count(const char *group, const std::string &key, long n = 1);
// Runs or queues work on a stream, as a kernel of this name in graphs; counts it in a group of the
// statistics unless it is captured. Returns an Error.
int enqueue(void *stream, const char *group, const std::string &name, std::function<int()> work);
void allocation_in_graph(void *stream, bool begins);   // a node of its own, if the stream is captured
int synchronize(void *stream);

}  // namespace emu
