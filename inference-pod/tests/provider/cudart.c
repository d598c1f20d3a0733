/* A stand-in for libcudart.so.13, for ONNX Runtime's own provider on machines without a GPU: one device, an H100 unless it is told
 * otherwise, of which it says what one says, whose memory is that of the process and whose kernels do nothing. What a device refuses to start is refused. It counts
 * what is asked of it: kernels by their names, waits for the device, copies, and memory.
 *
 * The functions that begin with fake_ are for the tests. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONFIGURATION = 9 };
/* Bytes that the threads of a block may share, of themselves and if a kernel asks for it. */
enum { SHARED = 48 << 10 };
enum { KERNELS = 1 << 21 };

typedef int Result;
typedef struct { unsigned x, y, z; } Size;
typedef struct { const void *stub; const char *name; size_t shared; uint64_t launched; } Kernel;

static Kernel kernels[KERNELS];
static uint64_t launched, refused, waits, copies, allocations, allocated;
static int capability[2] = {9, 0};
static _Thread_local Result last;

static int shared_most(void) { return capability[0] < 8 ? 64 << 10 : capability[0] < 9 ? 99 << 10 : 227 << 10; }

static uint64_t add(uint64_t *count, uint64_t more) { return __atomic_add_fetch(count, more, __ATOMIC_SEQ_CST); }

/* Those that the tests are made of. */
void fake_reset(void) {
  launched = refused = waits = copies = allocations = allocated = 0;
  for (int i = 0; i < KERNELS; i++) kernels[i].launched = 0;
}
void fake_capability(int major, int minor) { capability[0] = major, capability[1] = minor; }
uint64_t fake_launched(const char *part) {
  uint64_t sum = 0;
  for (int i = 0; i < KERNELS; i++)
    if (kernels[i].launched && strstr(kernels[i].name, part)) sum += kernels[i].launched;
  return sum;
}
uint64_t fake_refused(void) { return refused; }
uint64_t fake_waits(void) { return waits; }
uint64_t fake_copies(void) { return copies; }
uint64_t fake_allocations(void) { return allocations; }
uint64_t fake_allocated(void) { return allocated; }

/* Kernels, which are known by the functions that start them. */
static Kernel *kernel(const void *stub) {
  size_t i = ((uintptr_t)stub >> 4) * 0x9E3779B97F4A7C15ull >> 43;
  while (kernels[i].stub && kernels[i].stub != stub) i = (i + 1) % KERNELS;
  return &kernels[i];
}
void **__cudaRegisterFatBinary(void *code) { static void *module; (void)code; return &module; }
void __cudaRegisterFatBinaryEnd(void **module) { (void)module; }
void __cudaUnregisterFatBinary(void **module) { (void)module; }
void __cudaRegisterFunction(void **module, const char *stub, char *device, const char *name, int threads, void *a, void *b, void *c, void *d, int *e) {
  (void)module, (void)device, (void)threads, (void)a, (void)b, (void)c, (void)d, (void)e;
  Kernel *k = kernel(stub);
  k->stub = stub, k->name = name;
}
void __cudaRegisterVar(void **module, char *host, char *device, const char *name, int a, size_t size, int b, int c) {
  (void)module, (void)host, (void)device, (void)name, (void)a, (void)size, (void)b, (void)c;
}
Result __cudaGetKernel(void **found, const void *stub) { *found = (void *)stub; return 0; }

static Result launch(const void *stub, Size grid, Size block, size_t shared) {
  Kernel *k = kernel(stub);
  const char *name = k->stub ? k->name : "a kernel of a library";
  int none = !grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z;
  int many = grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535 || block.z > 64 || (uint64_t)block.x * block.y * block.z > 1024;
  if (none || many || shared > (k->shared ? k->shared : SHARED)) {
    fprintf(stderr, "cudart: %s of %u,%u,%u blocks of %u,%u,%u threads that share %zu bytes\n", name, grid.x, grid.y, grid.z, block.x,
            block.y, block.z, shared);
    add(&refused, 1);
    return last = INVALID_CONFIGURATION;
  }
  add(&launched, 1), add(&k->launched, 1);
  return 0;
}
static _Thread_local struct { Size grid, block; size_t shared; void *stream; } pushed;
unsigned __cudaPushCallConfiguration(Size grid, Size block, size_t shared, void *stream) {
  pushed.grid = grid, pushed.block = block, pushed.shared = shared, pushed.stream = stream;
  return 0;
}
Result __cudaPopCallConfiguration(Size *grid, Size *block, size_t *shared, void **stream) {
  *grid = pushed.grid, *block = pushed.block, *shared = pushed.shared, *stream = pushed.stream;
  return 0;
}
#define LAUNCHES(call) \
  Result call(const void *stub, Size grid, Size block, void **arguments, size_t shared, void *stream) { \
    (void)arguments, (void)stream; \
    return launch(stub, grid, block, shared); \
  }
LAUNCHES(__cudaLaunchKernel) LAUNCHES(cudaLaunchKernel) LAUNCHES(cudaLaunchCooperativeKernel)
typedef struct { Size grid, block; size_t shared; } Config;
Result cudaLaunchKernelExC(const Config *c, const void *stub, void **arguments) { (void)arguments; return launch(stub, c->grid, c->block, c->shared); }
Result cudaLaunchHostFunc(void *stream, void (*call)(void *), void *data) { (void)stream; call(data); return 0; }
Result cudaFuncSetAttribute(const void *stub, int attribute, int value) {
  Kernel *k = kernel(stub);
  if (attribute == 8 && value > shared_most()) return last = INVALID_VALUE;
  if (attribute == 8 && k->stub) k->shared = (size_t)value;
  return 0;
}
/* Threads of a block at most, registers, and the compute capability that it was made for twice. */
Result cudaFuncGetAttributes(char *attributes, const void *stub) {
  int made_for = 10 * capability[0] + capability[1], values[] = {1024, 32, made_for, made_for};
  (void)stub;
  memset(attributes, 0, 144), memcpy(attributes + 24, values, sizeof values);
  return 0;
}
Result cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *stub, int threads, size_t shared, unsigned flags) {
  (void)stub, (void)threads, (void)shared, (void)flags;
  *blocks = 1;
  return 0;
}
Result cudaKernelSetAttributeForDevice(void *k, int a, int v, int d) { (void)k, (void)a, (void)v, (void)d; return 0; }
Result cudaLibraryLoadData(void **made, const void *code) { *made = (void *)code; return 0; }
Result cudaLibraryGetKernel(void **found, void *library, const char *name) { (void)library; *found = (void *)name; return 0; }
Result cudaLibraryUnload(void *library) { (void)library; return 0; }

/* The device. */
Result cudaGetDeviceCount(int *count) { *count = 1; return 0; }
Result cudaGetDevice(int *device) { *device = 0; return 0; }
Result cudaSetDevice(int device) { return last = device ? 101 : 0; }
Result cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
Result cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
Result cudaMemGetInfo(size_t *available, size_t *all) { *available = 84000000000, *all = 85000000000; return 0; }
Result cudaDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  switch (attribute) {
  case 1: *value = 1024; break;        /* threads of a block */
  case 8: *value = SHARED; break;
  case 10: *value = 32; break;         /* threads of a warp */
  case 16: *value = 132; break;        /* multiprocessors */
  case 39: *value = 2048; break;       /* threads of a multiprocessor */
  case 75: *value = capability[0]; break; /* compute capability */
  case 76: *value = capability[1]; break;
  case 81: *value = 228 << 10; break;  /* what a multiprocessor's blocks share */
  case 97: *value = shared_most(); break;
  case 106: *value = 32; break;        /* blocks of a multiprocessor */
  default: *value = 1;
  }
  return 0;
}
/* Where what lies in cudaDeviceProp of CUDA 13, which has 1008 bytes. */
Result cudaGetDeviceProperties(char *properties, int device) {
  struct { size_t place; uint64_t value; int bytes; } all[] = {
      {288, 85000000000, 8}, {296, SHARED, 8},       {304, 65536, 4},   {308, 32, 4},          {312, INT32_MAX, 8}, {320, 1024, 4},
      {324, 1024, 4},        {328, 1024, 4},         {332, 64, 4},      {336, INT32_MAX, 4},   {340, 65535, 4},     {344, 65535, 4},
      {352, 65536, 8},       {360, (uint64_t)capability[0], 4}, {364, (uint64_t)capability[1], 4},      {384, 132, 4},         {392, 1, 4},         {560, 1, 4},
      {584, 3, 4},           {588, 1, 4},            {596, 50 << 20, 4}, {604, 2048, 4},       {624, 228 << 10, 8}, {632, 65536, 4},
      {636, 1, 4},           {668, 1, 4},            {672, (uint64_t)shared_most(), 8}, {688, 32, 4},      {696, 1024, 8},      {720, 1, 4}};
  (void)device;
  memset(properties, 0, 1008), strcpy(properties, "a stand-in");
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) memcpy(properties + all[i].place, &all[i].value, (size_t)all[i].bytes);
  return 0;
}
Result cudaGetLastError(void) { Result error = last; last = 0; return error; }
Result cudaPeekAtLastError(void) { return last; }
const char *cudaGetErrorName(Result error) { return error ? "cudaErrorOfATest" : "cudaSuccess"; }
const char *cudaGetErrorString(Result error) { return error ? "an error of a test" : "no error"; }
Result cudaGetDriverEntryPointByVersion(const char *name, void **found, unsigned version, uint64_t flags, int *how) {
  (void)name, (void)version, (void)flags;
  *found = 0;
  if (how) *how = 1;
  return 0;
}

/* What waits. */
Result cudaDeviceSynchronize(void) { add(&waits, 1); return 0; }
Result cudaStreamSynchronize(void *stream) { (void)stream; add(&waits, 1); return 0; }
Result cudaEventSynchronize(void *event) { (void)event; add(&waits, 1); return 0; }

/* Streams and events. */
Result cudaStreamCreate(void **made) { *made = malloc(1); return 0; }
Result cudaStreamCreateWithFlags(void **made, unsigned flags) { (void)flags; *made = malloc(1); return 0; }
Result cudaStreamDestroy(void *stream) { free(stream); return 0; }
Result cudaStreamWaitEvent(void *stream, void *event, unsigned flags) { (void)stream, (void)event, (void)flags; return 0; }
Result cudaStreamIsCapturing(void *stream, int *is) { (void)stream; *is = 0; return 0; }
Result cudaStreamBeginCapture(void *stream, int mode) { (void)stream, (void)mode; return last = INVALID_VALUE; }
Result cudaStreamEndCapture(void *stream, void **graph) { (void)stream; *graph = 0; return last = INVALID_VALUE; }
Result cudaGraphDestroy(void *graph) { (void)graph; return 0; }
Result cudaGraphExecDestroy(void *graph) { (void)graph; return 0; }
Result cudaGraphInstantiate(void **made, void *graph, uint64_t flags) { (void)graph, (void)flags; *made = 0; return last = INVALID_VALUE; }
Result cudaGraphLaunch(void *graph, void *stream) { (void)graph, (void)stream; return last = INVALID_VALUE; }
Result cudaEventCreate(void **made) { *made = malloc(1); return 0; }
Result cudaEventCreateWithFlags(void **made, unsigned flags) { (void)flags; *made = malloc(1); return 0; }
Result cudaEventDestroy(void *event) { free(event); return 0; }
Result cudaEventRecord(void *event, void *stream) { (void)event, (void)stream; return 0; }
Result cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) { (void)event, (void)stream, (void)flags; return 0; }
Result cudaEventElapsedTime(float *milliseconds, void *from, void *to) { (void)from, (void)to; *milliseconds = 1; return 0; }

/* Memory. Nothing is written to what is large, so that it takes none of this machine's. */
static Result allocate(void **made, size_t bytes) {
  add(&allocations, 1), add(&allocated, bytes);
  return (*made = aligned_alloc(256, (bytes + 511) / 256 * 256)) ? 0 : (last = OUT_OF_MEMORY);
}
Result cudaMalloc(void **made, size_t bytes) { return allocate(made, bytes); }
Result cudaHostAlloc(void **made, size_t bytes, unsigned flags) { (void)flags; return allocate(made, bytes); }
Result cudaMallocHost(void **made, size_t bytes) { return allocate(made, bytes); }
Result cudaMallocFromPoolAsync(void **made, size_t bytes, void *pool, void *stream) { (void)pool, (void)stream; return allocate(made, bytes); }
Result cudaFree(void *place) { free(place); return 0; }
Result cudaFreeAsync(void *place, void *stream) { (void)stream; free(place); return 0; }
Result cudaFreeHost(void *place) { free(place); return 0; }
Result cudaMemPoolCreate(void **made, const void *how) { (void)how; *made = malloc(1); return 0; }
Result cudaMemPoolDestroy(void *pool) { free(pool); return 0; }
Result cudaMemPoolGetAttribute(void *pool, int attribute, uint64_t *value) { (void)pool, (void)attribute; *value = 0; return 0; }
Result cudaMemPoolSetAttribute(void *pool, int attribute, void *value) { (void)pool, (void)attribute, (void)value; return 0; }
Result cudaMemPoolTrimTo(void *pool, size_t bytes) { (void)pool, (void)bytes; return 0; }
static Result copy(void *to, const void *from, size_t bytes) { add(&copies, 1), memcpy(to, from, bytes); return 0; }
Result cudaMemcpy(void *to, const void *from, size_t bytes, int kind) { (void)kind; add(&waits, 1); return copy(to, from, bytes); }
Result cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) { (void)kind, (void)stream; return copy(to, from, bytes); }
Result cudaMemcpy2DAsync(char *to, size_t to_row, const char *from, size_t from_row, size_t width, size_t height, int kind, void *stream) {
  (void)kind, (void)stream;
  for (size_t i = 0; i < height; i++) copy(to + i * to_row, from + i * from_row, width);
  return 0;
}
Result cudaMemcpyFromSymbol(void *to, const void *symbol, size_t bytes, size_t offset, int kind) {
  (void)symbol, (void)offset, (void)kind;
  add(&waits, 1), memset(to, 0, bytes);
  return 0;
}
Result cudaMemset(void *place, int value, size_t bytes) { add(&waits, 1), memset(place, value, bytes); return 0; }
Result cudaMemsetAsync(void *place, int value, size_t bytes, void *stream) { (void)stream; memset(place, value, bytes); return 0; }
Result cudaPointerGetAttributes(int *attributes, const void *place) { (void)place; memset(attributes, 0, 88), *attributes = 2; return 0; }
