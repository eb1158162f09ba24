// An open loop: calls go out when their time has come, whatever has become of those before.
//
//   open_loop HOST:PORT METHOD BODY CONNECTIONS TIMEOUT_MS RATE:SECONDS[,RATE:SECONDS...]
//
// METHOD is /package.Service/Method and BODY a file with the request. Each line of the output is
// one call: when it was due (microseconds from the start), its status code, and how long after
// that its answer came (microseconds). So a queue in here counts as waiting too.

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

using Clock = std::chrono::steady_clock;

struct Phase {
  double rate, seconds;
};

struct Outgoing {
  grpc::ClientContext context;
  grpc::ByteBuffer request, response;
};

// One for each call, written once: by the thread that hears of its end.
struct Record {
  long due_us = 0, took_us = 0;
  int code = -1;
};

static std::vector<Phase> parse_phases(const std::string& text) {
  std::vector<Phase> phases;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    Phase phase;
    if (std::sscanf(part.c_str(), "%lf:%lf", &phase.rate, &phase.seconds) != 2) return {};
    phases.push_back(phase);
  }
  return phases;
}

static std::vector<long> due_times(const std::vector<Phase>& phases) {
  std::vector<long> due;
  double start = 0;
  for (const Phase& phase : phases) {
    long calls = static_cast<long>(phase.rate * phase.seconds);
    for (long i = 0; i < calls; ++i)
      due.push_back(static_cast<long>((start + i / phase.rate) * 1e6));
    start += phase.seconds;
  }
  return due;
}

static std::unique_ptr<grpc::GenericStub> connect(const std::string& target, int number) {
  grpc::ChannelArguments arguments;
  arguments.SetInt("connection", number);  // different arguments: no connection is shared
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel =
      grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
  channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10));
  return std::make_unique<grpc::GenericStub>(channel);
}

int main(int count, char** arguments) {
  if (count != 7) {
    std::fprintf(stderr, "usage: open_loop HOST:PORT METHOD BODY CONNECTIONS TIMEOUT_MS PHASES\n");
    return 2;
  }
  std::ifstream file(arguments[3], std::ios::binary);
  std::stringstream body;
  body << file.rdbuf();
  const grpc::Slice slice(body.str());
  const std::string method = arguments[2];
  const auto timeout = std::chrono::milliseconds(std::stol(arguments[5]));
  const std::vector<long> due = due_times(parse_phases(arguments[6]));

  std::vector<std::unique_ptr<grpc::GenericStub>> stubs;
  for (int i = 0; i < std::stoi(arguments[4]); ++i) stubs.push_back(connect(arguments[1], i));

  std::vector<Record> records(due.size());
  std::atomic<size_t> ended{0};
  const auto start = Clock::now();
  for (size_t i = 0; i < due.size(); ++i) {
    const auto when = start + std::chrono::microseconds(due[i]);
    std::this_thread::sleep_until(when);
    records[i].due_us = due[i];
    auto* call = new Outgoing;
    call->request = grpc::ByteBuffer(&slice, 1);
    call->context.set_deadline(std::chrono::system_clock::now() + timeout);
    stubs[i % stubs.size()]->UnaryCall(
        &call->context, method, grpc::StubOptions(), &call->request, &call->response,
        [call, when, record = &records[i], &ended](grpc::Status status) {
          const auto took = Clock::now() - when;
          record->took_us =
              std::chrono::duration_cast<std::chrono::microseconds>(took).count();
          record->code = status.error_code();
          delete call;
          ++ended;
        });
  }
  while (ended < due.size()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  for (const Record& record : records)
    std::printf("%ld %d %ld\n", record.due_us, record.code, record.took_us);
  return 0;
}
