/* A stand-in for libnvidia-ml.so.1, for tests on machines without a GPU. It has one device, of which each call may fail. */
#include <stdio.h>
#include <string.h>

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;

static char failing[64], uuid[64];
static int code;
static unsigned long long reasons;

/* The device's name, and what slows it down. */
void fake_device(const char *with_uuid, unsigned long long with_reasons) {
  snprintf(uuid, sizeof uuid, "%s", with_uuid);
  reasons = with_reasons, code = 0;
}
/* Lets a call fail from now on. */
void fake_fail(const char *call, int with_code) {
  snprintf(failing, sizeof failing, "%s", call);
  code = with_code;
}

#define FAIL if (code && !strcmp(failing, __func__)) return code

int nvmlInit_v2(void) { FAIL; return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) { FAIL; snprintf(version, length, "580.65.06"); return 0; }
int nvmlDeviceGetHandleByUUID(const char *asked, void **device) {
  FAIL;
  *device = uuid;
  return strcmp(asked, uuid) ? 6 /* not found */ : 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, Memory *memory) {
  (void)device;
  FAIL;
  memory->total = 85899345920, memory->reserved = 1, memory->used = 4294967296, memory->free = 0;
  return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, Utilization *rates) { (void)device; FAIL; rates->gpu = 75, rates->memory = 10; return 0; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { (void)device; FAIL; *milliwatts = 350500; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *r) { (void)device; FAIL; *r = reasons; return 0; }
