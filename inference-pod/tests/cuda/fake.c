/* A stand-in for libcuda.so.1, for tests on machines without a GPU.
 *
 * Each stream is a thread that does what was asked of it in order, after random delays: copies, events and "kernels" are as
 * asynchronous as on a device. "Device" memory is memory of the process.
 *
 * Whatever the delays happen to be, it finds out whether the order was left to chance. Each operation has a number in its
 * stream, and each stream, event and the host have a clock: for each stream, the last operation that is known to be over
 * before whatever comes next. An operation that touches memory which another one, not known to be over, reads or writes is
 * counted as a violation. Pinned memory is taken from the host by mprotect from when a copy is asked for until the
 * host has waited for it: whoever touches it meanwhile is counted too, and then let through.
 *
 * The functions that begin with fake_ are for the tests. Each test has devices of its own: what an earlier one left behind, as
 * it must where a device is lost, may still go on and is not counted. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DEVICES = 4, STREAMS = 256, BLOCKS = 4096, FAILURES = 16, PAGE = 4096 };
enum { OUT_OF_MEMORY = 2, NOT_READY = 600, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, INVALID_HANDLE = 400 };

typedef int Result;
typedef struct { uint32_t at[STREAMS]; } Clock;
typedef struct { int broken, hangs; long alive; double copying_ms, computing_ms; uint64_t kernels, copies_in, synchronising, waits; } Device;
/* When it was, by the clock of the device: that runs while the device does something, however long it takes here. */
typedef struct Event { Clock clock; uint64_t asked, done; int timed; double at_ms; Device *device; } Event;
/* Memory of a device, or pinned memory: then the device knows it by another address, at which it is never protected. */
typedef struct { char *base, *alias; size_t size; Device *device; uint32_t writer, written, read[STREAMS]; int used; } Block;
typedef enum { COPY, KERNEL, RECORD, WAIT } Kind;
typedef struct Op { Kind kind; char *to; const char *from; size_t bytes, floats; Event *event; uint64_t record; struct Op *next; } Op;
typedef struct { uint32_t id; Clock clock; Op *head, *tail; int busy, stop; double now_ms; Device *device; pthread_t thread; } Stream;
typedef struct { char call[32]; long left; int code, sticky; } Failure;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static Device first[DEVICES], *devices = first;
static Block blocks[BLOCKS];
static Failure failures[FAILURES];
static Clock host;
static uint32_t streams;
static uint64_t seed = 1, delay_us;
static size_t largest = SIZE_MAX;
static volatile long violations;
static _Thread_local Device *current;

static void violate(const char *what) {
  __atomic_add_fetch(&violations, 1, __ATOMIC_SEQ_CST);
  /* Of a signal handler too, where little else is allowed. */
  (void)!write(2, what, strlen(what));
  (void)!write(2, "\n", 1);
}

static uint64_t number(void) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return seed;
}

static void merge(Clock *into, const Clock *from) {
  for (int i = 0; i < STREAMS; i++)
    if (from->at[i] > into->at[i]) into->at[i] = from->at[i];
}

/* Whether all that touched a block is over by that clock. Reads may overlap with reads. */
static int is_over(const Block *b, const Clock *by, int also_reads) {
  if (b->written > by->at[b->writer]) return 0;
  for (int i = 0; also_reads && i < STREAMS; i++)
    if (b->read[i] > by->at[i]) return 0;
  return 1;
}

static Block *block_of(const void *p) {
  for (int i = 0; i < BLOCKS; i++) {
    Block *b = &blocks[i];
    if (b->used && (const char *)p >= b->base && (const char *)p < b->base + b->size) return b;
  }
  return 0;
}

static void on_fault(int signal_number, siginfo_t *info, void *context) {
  (void)context;
  Block *b = block_of(info->si_addr);
  if (!b || !b->alias) {
    signal(signal_number, SIG_DFL);
    return;
  }
  violate("fake: pinned memory was touched while the device had it");
  mprotect(b->base, b->size, PROT_READ | PROT_WRITE);
}

/* An error that was asked for, or that of a device that is broken. To be called with the lock. */
static Result failure(const char *call, Device *device) {
  for (int i = 0; i < FAILURES; i++) {
    Failure *f = &failures[i];
    if (f->code && !strcmp(f->call, call) && --f->left < 0) {
      int code = f->code;
      if (f->sticky && device) device->broken = code;
      f->code = 0;
      return code;
    }
  }
  return device ? device->broken : 0;
}

/* What every call begins with: it is counted, and may fail. */
static Result enter(const char *call, Device *device, int synchronises) {
  if (!device) return INVALID_CONTEXT;
  pthread_mutex_lock(&lock);
  device->synchronising += (uint64_t)synchronises;
  Result r = failure(call, device);
  pthread_mutex_unlock(&lock);
  return r;
}

static void run_kernel(Stream *s, Op *op) {
  pthread_mutex_lock(&lock);
  int code = s->device->broken ? 0 : failure("kernel", s->device);
  if (code) s->device->broken = code;
  while (s->device->hangs) pthread_cond_wait(&changed, &lock);
  int broken = s->device->broken;
  s->device->kernels += !broken;
  pthread_mutex_unlock(&lock);
  const uint32_t *in = (const uint32_t *)op->from;
  float *out = (float *)op->to;
  size_t n = op->bytes / sizeof(uint32_t);
  for (size_t i = 0; i < op->floats; i++) out[i] = broken || !n ? -1.0f : 2.0f * (float)(in[i % n] % 65536) + 1.0f;
}

static void *work(void *p) {
  Stream *s = p;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (!s->head && !s->stop) pthread_cond_wait(&changed, &lock);
    Op *op = s->head;
    if (!op) break;
    uint64_t pause = delay_us ? number() % delay_us : 0;
    pthread_mutex_unlock(&lock);
    if (pause) usleep(pause);
    if (op->kind == KERNEL) run_kernel(s, op);
    pthread_mutex_lock(&lock);
    switch (op->kind) {
    case COPY:
      if (!s->device->broken) memcpy(op->to, op->from, op->bytes);
      s->device->copies_in += op->record;
      s->now_ms += s->device->copying_ms;
      break;
    case RECORD: op->event->done = op->record, op->event->at_ms = s->now_ms; break;
    case WAIT:
      while (op->event->done < op->record) pthread_cond_wait(&changed, &lock);
      if (op->event->at_ms > s->now_ms) s->now_ms = op->event->at_ms;
      break;
    case KERNEL: s->now_ms += s->device->computing_ms; break;
    }
    s->head = op->next;
    if (!s->head) s->tail = 0;
    free(op);
    pthread_cond_broadcast(&changed);
  }
  pthread_mutex_unlock(&lock);
  return 0;
}

/* Appends an operation to a stream, with its number. To be called with the lock. */
static uint32_t ask(Stream *s, Op op) {
  Op *o = malloc(sizeof *o);
  *o = op;
  if (s->tail) s->tail->next = o; else s->head = o;
  s->tail = o;
  merge(&s->clock, &host);
  pthread_cond_broadcast(&changed);
  return ++s->clock.at[s->id];
}

static void reads(Stream *s, Block *b, uint32_t op) {
  if (!is_over(b, &s->clock, 0)) violate("fake: memory is read while it may be written");
  b->read[s->id] = op;
}

static void writes(Stream *s, Block *b, uint32_t op) {
  if (!is_over(b, &s->clock, 1)) violate("fake: memory is written while it may be in use");
  b->writer = s->id, b->written = op;
}

/* The host has waited: what is over is its own again. */
static void host_knows(const Clock *clock) {
  merge(&host, clock);
  for (int i = 0; i < BLOCKS; i++)
    if (blocks[i].used && blocks[i].alias && is_over(&blocks[i], &host, 1))
      mprotect(blocks[i].base, blocks[i].size, PROT_READ | PROT_WRITE);
}

static Block *take_block(void) {
  for (int i = 0; i < BLOCKS; i++)
    if (!blocks[i].used) {
      memset(&blocks[i], 0, sizeof blocks[i]);
      blocks[i].used = 1, blocks[i].device = current, current->alive++;
      return &blocks[i];
    }
  violate("fake: too many blocks");
  abort();
}

static Result free_block(void *p) {
  pthread_mutex_lock(&lock);
  Block *b = block_of(p);
  Result r = b && b->base == p ? 0 : INVALID_HANDLE;
  if (b && !is_over(b, &host, 1)) violate("fake: memory is freed while it may be in use");
  else if (b && b->alias) munmap(b->base, b->size), munmap(b->alias, b->size);
  else if (b) free(b->base);
  if (b) b->used = 0, b->device->alive--;
  pthread_mutex_unlock(&lock);
  return r;
}

/* --- what the driver has ----------------------------------------------------------------------------------------- */

static const char *is(const char *what) {
  const char *v = getenv("KEMBED_FAKE_CUDA");
  return v && !strcmp(v, what) ? v : 0;
}

Result cuInit(unsigned flags) {
  (void)flags;
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigaction(SIGSEGV, &action, 0);
  return is("no-device") ? NO_DEVICE : 0;
}
Result cuDriverGetVersion(int *v) { *v = is("old-driver") ? 12040 : 13000; return 0; }
Result cuDeviceGetCount(int *n) { *n = is("none-visible") ? 0 : DEVICES; return 0; }
Result cuDeviceGet(int *d, int i) { *d = i; return i < 0 || i >= DEVICES ? INVALID_DEVICE : 0; }
Result cuDeviceGetAttribute(int *v, int a, int d) { (void)d; *v = a == 75 ? (is("old-device") ? 5 : 9) : 0; return 0; }
Result cuDeviceGetName(char *n, int l, int d) { snprintf(n, (size_t)l, "Stand-in %d", d); return 0; }
Result cuDeviceGetUuid_v2(char *uuid, int d) { memset(uuid, 0xa0 + d, 16); return 0; }
Result cuDeviceTotalMem_v2(size_t *n, int d) { (void)d; *n = (size_t)1 << 30; return 0; }
Result cuMemGetInfo_v2(size_t *f, size_t *t) { *f = (size_t)1 << 29, *t = (size_t)1 << 30; return enter("cuMemGetInfo_v2", current, 0); }

Result cuDevicePrimaryCtxRetain(void **c, int d) {
  Result r = enter("cuDevicePrimaryCtxRetain", &devices[d], 0);
  *c = &devices[d];
  pthread_mutex_lock(&lock);
  devices[d].alive += !r;
  pthread_mutex_unlock(&lock);
  return r;
}
Result cuDevicePrimaryCtxRelease_v2(int d) {
  (void)d; /* The device that is current is the one of the right test. */
  pthread_mutex_lock(&lock);
  current->alive--;
  pthread_mutex_unlock(&lock);
  return 0;
}
Result cuCtxSetCurrent(void *c) { current = c; return 0; }
Result cuCtxSetFlags(unsigned f) { (void)f; return enter("cuCtxSetFlags", current, 0); }

Result cuStreamCreate(void **out, unsigned flags) {
  (void)flags;
  Result r = enter("cuStreamCreate", current, 0);
  if (r) return r;
  Stream *s = calloc(1, sizeof *s);
  pthread_mutex_lock(&lock);
  s->id = streams++, s->device = current, current->alive++;
  if (s->id >= STREAMS) abort();
  pthread_mutex_unlock(&lock);
  pthread_create(&s->thread, 0, work, s);
  pthread_detach(s->thread);
  *out = s;
  return 0;
}
Result cuStreamDestroy_v2(void *h) {
  Stream *s = h;
  pthread_mutex_lock(&lock);
  s->stop = 1, s->device->alive--;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  return 0; /* The stream itself is never freed: its thread may still be at work. */
}
Result cuStreamSynchronize(void *h) {
  Stream *s = h;
  Result r = enter("cuStreamSynchronize", s->device, 1);
  if (r) return r;
  pthread_mutex_lock(&lock);
  while (s->head) pthread_cond_wait(&changed, &lock);
  host_knows(&s->clock);
  r = s->device->broken;
  pthread_mutex_unlock(&lock);
  return r;
}
Result cuStreamWaitEvent(void *h, void *event, unsigned flags) {
  (void)flags;
  Stream *s = h;
  Event *e = event;
  Result r = enter("cuStreamWaitEvent", s->device, 0);
  if (r) return r;
  pthread_mutex_lock(&lock);
  ask(s, (Op){.kind = WAIT, .event = e, .record = e->asked});
  merge(&s->clock, &e->clock);
  pthread_mutex_unlock(&lock);
  return 0;
}

Result cuEventCreate(void **out, unsigned flags) {
  Result r = enter("cuEventCreate", current, 0);
  if (r) return r;
  Event *e = calloc(1, sizeof *e);
  e->device = current, e->timed = !(flags & 2);
  *out = e;
  pthread_mutex_lock(&lock);
  current->alive++;
  pthread_mutex_unlock(&lock);
  return 0;
}
Result cuEventDestroy_v2(void *event) {
  Event *e = event;
  pthread_mutex_lock(&lock);
  e->device->alive--;
  pthread_mutex_unlock(&lock);
  return 0; /* Never freed: a stream may still wait for it. */
}
Result cuEventRecord(void *event, void *h) {
  Stream *s = h;
  Event *e = event;
  Result r = enter("cuEventRecord", s->device, 0);
  if (r) return r;
  pthread_mutex_lock(&lock);
  ask(s, (Op){.kind = RECORD, .event = e, .record = ++e->asked});
  e->clock = s->clock;
  pthread_mutex_unlock(&lock);
  return 0;
}
Result cuEventElapsedTime(float *ms, void *from, void *to) {
  Event *a = from, *b = to;
  Result r = enter("cuEventElapsedTime", a->device, 0);
  if (r) return r;
  pthread_mutex_lock(&lock);
  if (!a->timed || !b->timed || !a->asked || !b->asked) r = INVALID_HANDLE;
  else if (a->done < a->asked || b->done < b->asked) r = NOT_READY;
  else *ms = (float)(b->at_ms - a->at_ms);
  pthread_mutex_unlock(&lock);
  return r;
}
Result cuEventSynchronize(void *event) {
  Event *e = event;
  Result r = enter("cuEventSynchronize", e->device, 0);
  if (r) return r;
  pthread_mutex_lock(&lock);
  e->device->waits++;
  uint64_t record = e->asked;
  Clock clock = e->clock;
  while (e->done < record) pthread_cond_wait(&changed, &lock);
  host_knows(&clock);
  r = e->device->broken;
  pthread_mutex_unlock(&lock);
  return r;
}

Result cuMemAlloc_v2(void **out, size_t n) {
  Result r = enter("cuMemAlloc_v2", current, 1);
  if (r) return r;
  pthread_mutex_lock(&lock);
  Block *b = take_block();
  b->size = n ? n : 1, b->base = malloc(b->size);
  memset(b->base, 0xff, b->size);
  pthread_mutex_unlock(&lock);
  *out = b->base;
  return 0;
}
Result cuMemFree_v2(void *p) {
  Result r = enter("cuMemFree_v2", current, 1);
  return r ? r : free_block(p);
}
Result cuMemHostAlloc(void **out, size_t n, unsigned flags) {
  (void)flags;
  Result r = enter("cuMemHostAlloc", current, 1);
  if (r) return r;
  size_t size = (n + PAGE - 1) / PAGE * PAGE;
  int file = memfd_create("pinned", 0);
  if (file < 0 || ftruncate(file, (off_t)size)) return OUT_OF_MEMORY;
  char *base = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  char *alias = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (base == MAP_FAILED || alias == MAP_FAILED) return OUT_OF_MEMORY;
  pthread_mutex_lock(&lock);
  Block *b = take_block();
  b->size = size, b->base = base, b->alias = alias;
  pthread_mutex_unlock(&lock);
  *out = base;
  return 0;
}
Result cuMemFreeHost(void *p) {
  Result r = enter("cuMemFreeHost", current, 1);
  return r ? r : free_block(p);
}

Result cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t n, void *h) {
  Stream *s = h;
  Result r = enter("cuMemcpyHtoDAsync_v2", s->device, 0);
  if (r) return r;
  pthread_mutex_lock(&lock);
  Block *d = block_of(to), *p = block_of(from);
  if (!d || !p || !p->alias) violate("fake: a copy in is not of pinned memory");
  else {
    uint32_t op = ask(s, (Op){.kind = COPY, .to = to, .from = p->alias + ((const char *)from - p->base), .bytes = n, .record = 1});
    reads(s, p, op), writes(s, d, op);
    mprotect(p->base, p->size, PROT_READ);
  }
  pthread_mutex_unlock(&lock);
  return 0;
}
Result cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t n, void *h) {
  Stream *s = h;
  Result r = enter("cuMemcpyDtoHAsync_v2", s->device, 0);
  if (r) return r;
  pthread_mutex_lock(&lock);
  Block *d = block_of(from), *p = block_of(to);
  if (!d || !p || !p->alias) violate("fake: a copy out is not of pinned memory");
  else {
    uint32_t op = ask(s, (Op){.kind = COPY, .to = p->alias + ((char *)to - p->base), .from = from, .bytes = n});
    reads(s, d, op), writes(s, p, op);
    mprotect(p->base, p->size, PROT_NONE);
  }
  pthread_mutex_unlock(&lock);
  return 0;
}

Result cuGetErrorName(int error, const char **name) {
  static const struct { int code; const char *name; } names[] = {
    {2, "CUDA_ERROR_OUT_OF_MEMORY"}, {100, "CUDA_ERROR_NO_DEVICE"}, {101, "CUDA_ERROR_INVALID_DEVICE"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS"}, {719, "CUDA_ERROR_LAUNCH_FAILED"}, {999, "CUDA_ERROR_UNKNOWN"}};
  *name = "CUDA_ERROR_OF_A_TEST";
  /* As a driver has it that does not know a number either. */
  if (error > 9999) return *name = 0, 1;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (names[i].code == error) *name = names[i].name;
  return 0;
}

/* --- what the tests have ----------------------------------------------------------------------------------------- */

/* A network: each output is twice the input word at its place, begun anew where they end, plus one. */
Result fake_kernel(void *h, const void *in, size_t bytes, void *out, size_t floats) {
  Stream *s = h;
  Result r = enter("launch", s->device, 0);
  if (r) return r;
  if (bytes > largest) return OUT_OF_MEMORY;
  pthread_mutex_lock(&lock);
  uint32_t op = ask(s, (Op){.kind = KERNEL, .from = in, .to = out, .bytes = bytes, .floats = floats});
  reads(s, block_of(in), op), writes(s, block_of(out), op);
  pthread_mutex_unlock(&lock);
  return 0;
}

/* Begins a test: as if the machine had just started, with delays of up to so many microseconds. */
void fake_begin(uint64_t with_seed, uint64_t with_delay_us) {
  pthread_mutex_lock(&lock);
  seed = with_seed * 2654435761u + 88172645463325252u, delay_us = with_delay_us;
  memset(failures, 0, sizeof failures);
  memset(&host, 0, sizeof host);
  for (int i = 0; i < BLOCKS; i++) blocks[i].used = 0;
  for (int i = 0; i < DEVICES; i++) devices[i].hangs = 0;
  devices = calloc(DEVICES, sizeof *devices);
  streams = 0, largest = SIZE_MAX, violations = 0;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}
/* Lets a call fail after so many that do not; "launch" and "kernel" are calls too. A sticky error breaks the device. */
void fake_fail(const char *call, long after, int code, int sticky) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < FAILURES; i++)
    if (!failures[i].code) {
      failures[i] = (Failure){.left = after, .code = code, .sticky = sticky};
      snprintf(failures[i].call, sizeof failures[i].call, "%s", call);
      break;
    }
  pthread_mutex_unlock(&lock);
}
/* Forgets what has not failed yet, and tells how many calls that were. */
uint64_t fake_fail_no_more(void) {
  pthread_mutex_lock(&lock);
  uint64_t left = 0;
  for (int i = 0; i < FAILURES; i++) left += failures[i].code != 0;
  memset(failures, 0, sizeof failures);
  pthread_mutex_unlock(&lock);
  return left;
}
/* Networks whose input is larger find no memory. */
void fake_largest(size_t bytes) { largest = bytes; }
/* How long copies and kernels take by the clock of the devices. */
void fake_takes(double copying_ms, double computing_ms) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < DEVICES; i++) devices[i].copying_ms = copying_ms, devices[i].computing_ms = computing_ms;
  pthread_mutex_unlock(&lock);
}
/* Kernels of a device do not end while it hangs. */
void fake_hang(int device, int hangs) {
  pthread_mutex_lock(&lock);
  devices[device].hangs = hangs;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}
long fake_violations(void) { return violations; }
#define COUNT(name, what) \
  uint64_t name(void) { \
    pthread_mutex_lock(&lock); \
    uint64_t n = 0; \
    for (int i = 0; i < DEVICES; i++) n += (uint64_t)devices[i].what; \
    pthread_mutex_unlock(&lock); \
    return n; \
  }
/* Calls that wait for a device, or may do so, and are not cuEventSynchronize. */
COUNT(fake_synchronising, synchronising)
COUNT(fake_waits, waits)
/* Copies to devices, and kernels, that are over. */
COUNT(fake_copies_in, copies_in)
COUNT(fake_kernels, kernels)
/* What was made and not destroyed. */
COUNT(fake_alive, alive)
