/* A stand-in for cuBLAS and cuBLASLt that does nothing, and for the one call of the driver's that ONNX Runtime is linked to. It is
 * built once for each of them. */
#include <stdlib.h>

#define NOTHING(name) int name(void) { return 0; }
#define MAKES(name) int name(void **made) { return !(*made = malloc(1)); }

NOTHING(cuTensorMapEncodeTiled)

MAKES(cublasCreate_v2)
int cublasDestroy_v2(void *handle) { free(handle); return 0; }
int cublasGetMathMode(void *handle, int *mode) { (void)handle; *mode = 0; return 0; }
const char *cublasGetStatusName(int code) { (void)code; return "a status of a test"; }
const char *cublasGetStatusString(int code) { (void)code; return "a status of a test"; }
NOTHING(cublasSetMathMode) NOTHING(cublasSetStream_v2) NOTHING(cublasGemmEx) NOTHING(cublasSgemm_v2) NOTHING(cublasDgemm_v2)
NOTHING(cublasGemmBatchedEx) NOTHING(cublasGemmStridedBatchedEx) NOTHING(cublasSgemmBatched) NOTHING(cublasSgemmStridedBatched)
NOTHING(cublasDgemmBatched) NOTHING(cublasDgemmStridedBatched) NOTHING(cublasSgeam) NOTHING(cublasDgeam) NOTHING(cublasScopy_v2)
NOTHING(cublasSscal_v2) NOTHING(cublasSgetrfBatched) NOTHING(cublasSgetriBatched) NOTHING(cublasDgetrfBatched) NOTHING(cublasDgetriBatched)

MAKES(cublasLtCreate) MAKES(cublasLtMatmulDescCreate) MAKES(cublasLtMatmulPreferenceCreate) MAKES(cublasLtMatrixLayoutCreate)
MAKES(cublasLtMatrixTransformDescCreate)
NOTHING(cublasLtDestroy) NOTHING(cublasLtMatmul) NOTHING(cublasLtMatmulAlgoConfigSetAttribute) NOTHING(cublasLtMatmulAlgoInit)
NOTHING(cublasLtMatmulAlgoGetHeuristic) NOTHING(cublasLtMatmulDescDestroy) NOTHING(cublasLtMatmulDescSetAttribute)
NOTHING(cublasLtMatmulPreferenceDestroy) NOTHING(cublasLtMatmulPreferenceSetAttribute) NOTHING(cublasLtMatrixLayoutDestroy)
NOTHING(cublasLtMatrixLayoutSetAttribute) NOTHING(cublasLtMatrixTransform) NOTHING(cublasLtMatrixTransformDescDestroy)
