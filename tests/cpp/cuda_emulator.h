// Runs CUDA kernels on a CPU: a fiber per thread, the blocks of a grid one after another.
//
// Compile a .cu as C++ with -DHVAE_EMULATE_CUDA and this folder on the include path. It finds wrong
// indices, tails, reductions and launch shapes, and aborts where a GPU would hang or be undefined:
// a barrier that not all threads of a block reach, a warp exchange that not all lanes join. It
// finds no races between warps, no faults of memory order or alignment, and nothing about speed.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __shared__ static  // blocks run one at a time, so a static is one block's memory

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

namespace emulator {

constexpr int kLanes = 32;
constexpr size_t kStackBytes = 1 << 16;

enum class State { kReady, kAtBarrier, kAtExchange, kDone };

struct Thread {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  dim3 index;
  State state = State::kDone;
};

struct Machine {
  std::vector<Thread> threads;
  std::vector<uint64_t> exchange;  // one slot per thread
  std::vector<uint4> shared;       // the block's dynamic shared memory
  std::function<void()> kernel;
  ucontext_t scheduler;
  size_t current = 0;
  dim3 grid, block, block_index;
};

inline Machine machine;

// Set by a test that wants the last block of every grid alone: tensors too large to go through.
inline bool last_block_only = false;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "CUDA emulator: %s\n", what);
  std::abort();
}

// Gives control back until the scheduler makes this thread ready again.
inline void wait_as(State state) {
  Thread& self = machine.threads[machine.current];
  self.state = state;
  swapcontext(&self.context, &machine.scheduler);
}

inline void thread_main() {
  machine.kernel();
  wait_as(State::kDone);
}

inline void start_threads() {
  const dim3 block = machine.block;
  const size_t count = size_t{block.x} * block.y * block.z;
  if (count == 0 || count > 1024) fail("a block must have 1 to 1024 threads");
  machine.threads.resize(count);
  machine.exchange.resize(count);
  for (size_t i = 0; i < count; ++i) {
    Thread& thread = machine.threads[i];
    thread.index =
        dim3(static_cast<unsigned>(i % block.x), static_cast<unsigned>(i / block.x % block.y),
             static_cast<unsigned>(i / block.x / block.y));
    thread.state = State::kReady;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, thread_main, 0);
  }
}

inline size_t count_in(State state, size_t first, size_t last) {
  return static_cast<size_t>(
      std::count_if(machine.threads.begin() + static_cast<std::ptrdiff_t>(first),
                    machine.threads.begin() + static_cast<std::ptrdiff_t>(last),
                    [state](const Thread& thread) { return thread.state == state; }));
}

inline void set_ready(size_t first, size_t last) {
  for (size_t i = first; i < last; ++i) machine.threads[i].state = State::kReady;
}

// Lets warps whose lanes have all met go on; every lane is named in the mask, so all must come.
inline void release_exchanges() {
  const size_t count = machine.threads.size();
  for (size_t first = 0; first < count; first += kLanes) {
    const size_t last = std::min(count, first + kLanes);
    const size_t waiting = count_in(State::kAtExchange, first, last);
    if (waiting == last - first) set_ready(first, last);
    if (waiting > 0 && waiting < last - first) fail("a warp exchange that not all lanes join");
  }
}

inline void run_block() {
  start_threads();
  const uint4 unwritten{~0u, ~0u, ~0u, ~0u};  // NaN, so that its use shows
  std::fill(machine.shared.begin(), machine.shared.end(), unwritten);
  const size_t count = machine.threads.size();
  while (count_in(State::kDone, 0, count) < count) {
    for (size_t i = 0; i < count; ++i) {
      if (machine.threads[i].state != State::kReady) continue;
      machine.current = i;
      swapcontext(&machine.scheduler, &machine.threads[i].context);
    }
    release_exchanges();
    const size_t at_barrier = count_in(State::kAtBarrier, 0, count);
    if (at_barrier == count) set_ready(0, count);
    if (at_barrier > 0 && count_in(State::kDone, 0, count) > 0) {
      fail("a barrier that not all threads of the block reach");
    }
  }
}

template <typename Kernel>
void launch(dim3 grid, dim3 block, size_t shared_bytes, Kernel kernel) {
  machine.grid = grid;
  machine.block = block;
  machine.kernel = kernel;
  machine.shared.resize((shared_bytes + sizeof(uint4) - 1) / sizeof(uint4));
  if (last_block_only) {
    machine.block_index = dim3(grid.x - 1, grid.y - 1, grid.z - 1);
    return run_block();
  }
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        machine.block_index = dim3(x, y, z);
        run_block();
      }
    }
  }
}

// Every thread leaves a value and takes that of the lane `lane ^ mask`.
template <typename T>
T exchange(T value, int mask) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "the exchange slots hold 8 bytes");
  const size_t self = machine.current;
  std::memcpy(&machine.exchange[self], &value, sizeof value);
  wait_as(State::kAtExchange);
  const size_t other = self ^ static_cast<size_t>(mask);
  if (other < machine.threads.size()) std::memcpy(&value, &machine.exchange[other], sizeof value);
  wait_as(State::kAtExchange);  // nobody may write its slot again before all have read
  return value;
}

}  // namespace emulator

#define threadIdx (emulator::machine.threads[emulator::machine.current].index)
#define blockIdx (emulator::machine.block_index)
#define blockDim (emulator::machine.block)
#define gridDim (emulator::machine.grid)

inline void __syncthreads() { emulator::wait_as(emulator::State::kAtBarrier); }

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  if (mask != 0xFFFFFFFFu) emulator::fail("only full masks are emulated");
  return emulator::exchange(value, lane_mask);
}

template <typename T>
void __stcs(T* address, T value) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0) emulator::fail("a misaligned store");
  *address = value;
}

#define HVAE_DYNAMIC_SHARED(name) uint4* name = emulator::machine.shared.data()
#define HVAE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (static_cast<void>(stream),                                       \
   emulator::launch(grid, block, shared_bytes, [&] { kernel(__VA_ARGS__); }))
