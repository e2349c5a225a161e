// A libcuda that launches nothing and knows of memory what the operating system does.
#include <unistd.h>

static int probe[2];
static long launched;

// cuPointerGetAttribute knows of no reserved address behind which nothing is mapped.
int cuPointerGetAttribute(void *data, int attribute, unsigned long long pointer) {
  char byte;
  if (!probe[1] && pipe(probe)) return 999;
  if (write(probe[1], (const void *)pointer, 1) != 1) return 1; // CUDA_ERROR_INVALID_VALUE
  if (read(probe[0], &byte, 1) != 1) return 999;
  *(unsigned long long *)data = pointer;
  return 0;
}
int cuLaunchKernel(void) { launched++; return 0; }
int cuLaunchKernelEx(void) { launched++; return 0; }
long launches(void) { return launched; }

int cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
int cuModuleLoadData(void **module, const void *image) { *module = (void *)1; return 0; }
int cuModuleGetFunction(void **f, void *m, const char *name) { *f = (void *)1; return 0; }
int cuFuncGetAttribute(int *value, int attribute, void *f) { *value = attribute ? 0 : 1024; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = 232448; return 0; }
int cuGetErrorString(int status, const char **text) { *text = "a made-up error"; return 0; }

#define SUCCEEDS(name) int name(void) { return 0; }
SUCCEEDS(cuCtxSetCurrent)
SUCCEEDS(cuCtxGetLimit)
SUCCEEDS(cuCtxSetLimit)
SUCCEEDS(cuDeviceGet)
SUCCEEDS(cuDevicePrimaryCtxRetain)
SUCCEEDS(cuDriverGetVersion)
SUCCEEDS(cuFuncSetAttribute)
SUCCEEDS(cuFuncSetCacheConfig)
SUCCEEDS(cuOccupancyMaxActiveClusters)
SUCCEEDS(cuTensorMapEncodeIm2col)
SUCCEEDS(cuTensorMapEncodeTiled)
