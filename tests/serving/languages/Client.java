import com.google.gson.Gson;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.NettyChannelBuilder;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** Makes the calls of a plan at once, by the library of Java on Netty, and prints what came of each. */
class Client {
  static class Call {
    String path;
    Map<String, String> metadata;
    List<String> messages;
    long milliseconds;
    int most;
  }

  static class Plan {
    String target;
    String roots;
    String certificate;
    String key;
    List<Call> calls;
  }

  static class Answer {
    List<String> messages = new ArrayList<>();
    int code;
    String text;
    String details = "";
  }

  static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  static final MethodDescriptor.Marshaller<byte[]> BYTES =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] wire) {
          return new ByteArrayInputStream(wire);
        }

        @Override
        public byte[] parse(InputStream stream) {
          try {
            return stream.readAllBytes();
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        }
      };

  static CompletableFuture<Answer> made(ManagedChannel channel, Call asked) {
    MethodDescriptor<byte[], byte[]> method =
        MethodDescriptor.<byte[], byte[]>newBuilder(BYTES, BYTES)
            .setType(MethodDescriptor.MethodType.BIDI_STREAMING)
            .setFullMethodName(asked.path.substring(1))
            .build();
    CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(asked.milliseconds, TimeUnit.MILLISECONDS);
    ClientCall<byte[], byte[]> call = channel.newCall(method, options);
    Metadata metadata = new Metadata();
    asked.metadata.forEach(
        (name, value) -> metadata.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value));
    CompletableFuture<Answer> told = new CompletableFuture<>();
    Answer answer = new Answer();
    call.start(
        new ClientCall.Listener<>() {
          @Override
          public void onMessage(byte[] wire) {
            answer.messages.add(Base64.getEncoder().encodeToString(wire));
            if (answer.messages.size() == asked.most) {
              call.cancel("enough", null);
            }
            call.request(1);
          }

          @Override
          public void onClose(Status status, Metadata trailers) {
            byte[] details = trailers.get(DETAILS);
            answer.code = status.getCode().value();
            answer.text = status.getDescription() == null ? "" : status.getDescription();
            answer.details = details == null ? "" : Base64.getEncoder().encodeToString(details);
            told.complete(answer);
          }
        },
        metadata);
    call.request(1);
    asked.messages.forEach(message -> call.sendMessage(Base64.getDecoder().decode(message)));
    call.halfClose();
    return told;
  }

  static File file(String path) {
    return path.isEmpty() ? null : new File(path);
  }

  public static void main(String[] arguments) throws Exception {
    Plan plan = new Gson().fromJson(new InputStreamReader(System.in), Plan.class);
    NettyChannelBuilder builder = NettyChannelBuilder.forTarget(plan.target);
    if (plan.roots.isEmpty()) {
      builder.usePlaintext();
    } else {
      builder.sslContext(
          GrpcSslContexts.forClient()
              .trustManager(file(plan.roots))
              .keyManager(file(plan.certificate), file(plan.key))
              .build());
    }
    ManagedChannel channel = builder.build();
    List<CompletableFuture<Answer>> told = new ArrayList<>();
    plan.calls.forEach(call -> told.add(made(channel, call)));
    List<Answer> answers = new ArrayList<>();
    for (CompletableFuture<Answer> one : told) {
      answers.add(one.get());
    }
    channel.shutdownNow();
    System.out.println(new Gson().toJson(answers));
    System.exit(0);
  }
}
