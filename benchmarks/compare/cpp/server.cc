// A gRPC server in C++ with the callback API that does mlpserve's work on mlpserve's contract:
// what Predict and BatchPredict cost where no Python runs. The same checks, the same float32
// network, OpenBLAS for the products as in NumPy, one BLAS thread.
//
//     server WEIGHTS PORT

#include <cblas.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "mlpserve/v1/prediction.grpc.pb.h"

namespace {

using mlpserve::v1::BatchPredictRequest;
using mlpserve::v1::BatchPredictResponse;
using mlpserve::v1::ModelRef;
using mlpserve::v1::PredictRequest;
using mlpserve::v1::PredictResponse;
using mlpserve::v1::PredictionService;
using mlpserve::v1::Tensor;

constexpr int kInputs = 784, kHidden = 128, kClasses = 10;
constexpr int kMaxBatch = 8192, kMaxMessageBytes = 64 << 20;

grpc::Status Invalid(const std::string& what) {
  return {grpc::StatusCode::INVALID_ARGUMENT, what};
}

// The weights as the benchmark writes them: w1, b1, w2, b2, row-major little-endian float32.
class Mlp {
 public:
  explicit Mlp(const char* path) {
    std::ifstream file(path, std::ios::binary);
    for (auto* part : {&w1_, &b1_, &w2_, &b2_})
      file.read(reinterpret_cast<char*>(part->data()), part->size() * sizeof(float));
    ok_ = file.good();
  }

  bool ok() const { return ok_; }

  // Probabilities (rows, kClasses) of x (rows, kInputs).
  void Forward(const float* x, int rows, float* probabilities) const {
    thread_local std::vector<float> hidden;
    hidden.resize(static_cast<size_t>(rows) * kHidden);
    Layer(x, rows, kInputs, w1_, b1_, kHidden, hidden.data());
    for (float& value : hidden) value = std::max(value, 0.0f);
    Layer(hidden.data(), rows, kHidden, w2_, b2_, kClasses, probabilities);
    for (int row = 0; row < rows; ++row) Softmax(probabilities + row * kClasses);
  }

 private:
  static void Layer(const float* x, int rows, int inputs, const std::vector<float>& w,
                    const std::vector<float>& b, int units, float* out) {
    for (int row = 0; row < rows; ++row)
      std::memcpy(out + row * units, b.data(), units * sizeof(float));
    if (rows == 1)
      cblas_sgemv(CblasRowMajor, CblasTrans, inputs, units, 1, w.data(), units, x, 1, 1, out, 1);
    else
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, units, inputs, 1, x, inputs,
                  w.data(), units, 1, out, units);
  }

  static void Softmax(float* z) {
    const float top = *std::max_element(z, z + kClasses);
    float sum = 0;
    for (int i = 0; i < kClasses; ++i) sum += z[i] = std::exp(z[i] - top);
    for (int i = 0; i < kClasses; ++i) z[i] /= sum;
  }

  std::vector<float> w1_ = std::vector<float>(kInputs * kHidden), b1_ = std::vector<float>(kHidden);
  std::vector<float> w2_ = std::vector<float>(kHidden * kClasses),
                     b2_ = std::vector<float>(kClasses);
  bool ok_ = false;
};

// The instances of a tensor, scaled to 0..1: `x` points at the message's own bytes where it can.
grpc::Status Decode(const Tensor& tensor, bool single, std::vector<float>* buffer,
                    const float** x, int* rows) {
  int64_t values = 1;
  for (const int64_t size : tensor.shape()) {
    if (size < 0 || size > kMaxBatch * kInputs) return Invalid("not a shape");
    values *= size;
    if (values > int64_t{kMaxBatch} * kInputs) return Invalid("too large a batch");
  }
  if (tensor.shape_size() == 0 || values == 0 || values % kInputs) return Invalid("wrong shape");
  *rows = static_cast<int>(values / kInputs);
  if (single ? *rows != 1 : tensor.shape(0) != *rows) return Invalid("wrong shape");
  const std::string& data = tensor.data();
  if (tensor.dtype() == mlpserve::v1::DATA_TYPE_UINT8) {
    if (data.size() != static_cast<size_t>(values)) return Invalid("wrong number of bytes");
    buffer->resize(values);
    const auto* pixels = reinterpret_cast<const uint8_t*>(data.data());
    for (int64_t i = 0; i < values; ++i) (*buffer)[i] = pixels[i] * (1.0f / 255);
    *x = buffer->data();
    return grpc::Status::OK;
  }
  if (tensor.dtype() != mlpserve::v1::DATA_TYPE_FLOAT32) return Invalid("unknown dtype");
  if (data.size() != values * sizeof(float)) return Invalid("wrong number of bytes");
  buffer->resize(values);
  std::memcpy(buffer->data(), data.data(), data.size());  // the bytes need not be aligned
  int wrong = 0;  // counted, not left at the first, so that the loop is vectorised
  for (const float value : *buffer) wrong += !(value >= 0 && value <= 1);
  *x = buffer->data();
  return wrong ? Invalid("a value outside 0..1") : grpc::Status::OK;
}

int Label(const float* row) {
  return static_cast<int>(std::max_element(row, row + kClasses) - row);
}

class Service final : public PredictionService::CallbackService {
 public:
  explicit Service(const Mlp& mlp) : mlp_(mlp) {
    model_.set_name("mnist");
    model_.set_version(1);
    model_.set_digest("sha256:" + std::string(64, '0'));
  }

  grpc::ServerUnaryReactor* Predict(grpc::CallbackServerContext* context,
                                    const PredictRequest* request,
                                    PredictResponse* response) override {
    auto* reactor = context->DefaultReactor();
    reactor->Finish(Answer(*request, response));
    return reactor;
  }

  grpc::ServerUnaryReactor* BatchPredict(grpc::CallbackServerContext* context,
                                         const BatchPredictRequest* request,
                                         BatchPredictResponse* response) override {
    auto* reactor = context->DefaultReactor();
    reactor->Finish(Answer(*request, response));
    return reactor;
  }

 private:
  grpc::Status Answer(const PredictRequest& request, PredictResponse* response) const {
    thread_local std::vector<float> buffer;
    const float* x;
    int rows;
    const auto status = Decode(request.instance(), true, &buffer, &x, &rows);
    if (!status.ok()) return status;
    float probabilities[kClasses];
    mlp_.Forward(x, 1, probabilities);
    response->set_label(Label(probabilities));
    response->mutable_probabilities()->Add(probabilities, probabilities + kClasses);
    *response->mutable_model() = model_;
    return grpc::Status::OK;
  }

  grpc::Status Answer(const BatchPredictRequest& request, BatchPredictResponse* response) const {
    thread_local std::vector<float> buffer;
    const float* x;
    int rows;
    const auto status = Decode(request.instances(), false, &buffer, &x, &rows);
    if (!status.ok()) return status;
    auto* tensor = response->mutable_probabilities();
    tensor->set_dtype(mlpserve::v1::DATA_TYPE_FLOAT32);
    tensor->add_shape(rows);
    tensor->add_shape(kClasses);
    std::vector<float> probabilities(static_cast<size_t>(rows) * kClasses);
    mlp_.Forward(x, rows, probabilities.data());
    tensor->set_data(probabilities.data(), probabilities.size() * sizeof(float));
    for (int row = 0; row < rows; ++row)
      response->add_labels(Label(&probabilities[row * kClasses]));
    *response->mutable_model() = model_;
    return grpc::Status::OK;
  }

  const Mlp& mlp_;
  ModelRef model_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: server WEIGHTS PORT\n");
    return 2;
  }
  openblas_set_num_threads(1);
  const Mlp mlp(argv[1]);
  if (!mlp.ok()) {
    std::fprintf(stderr, "cannot read %s\n", argv[1]);
    return 1;
  }
  Service service(mlp);
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.AddListeningPort("127.0.0.1:" + std::string(argv[2]), grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  if (!server) return 1;
  server->Wait();
}
