package io.curvine;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

/** The native library, which is in the jar. Its one method takes a {@link Request} and gives a {@link Reply}. */
final class Native {
  private static final String LIBRARY = "/io/curvine/native/linux-x86_64/libcurvine_hadoop.so";
  /** Why the library cannot be used; null if it can. */
  private static final IOException FAILURE = load();

  private Native() {
  }

  static native byte[] call(byte[] request, ByteBuffer buffer);

  /**
   * Makes a call.
   *
   * @throws IOException if the library cannot be used on this machine
   */
  static Reply make(Request request, ByteBuffer buffer) throws IOException {
    if (FAILURE != null) {
      throw new IOException(FAILURE.getMessage(), FAILURE);
    }
    return new Reply(call(request.bytes(), buffer));
  }

  private static IOException load() {
    String system = System.getProperty("os.name");
    String processor = System.getProperty("os.arch");
    if (!"Linux".equals(system) || !("amd64".equals(processor) || "x86_64".equals(processor))) {
      return new IOException("the Curvine jar has a native library for Linux on x86_64 only, and this is " + system
          + " on " + processor);
    }
    try (InputStream library = Native.class.getResourceAsStream(LIBRARY)) {
      if (library == null) {
        return new IOException("the Curvine jar was built without its native library: build it with hadoop/build");
      }
      Path copy = Files.createTempFile("libcurvine_hadoop", ".so");
      try {
        Files.copy(library, copy, StandardCopyOption.REPLACE_EXISTING);
        System.load(copy.toString());
      } finally {
        // It stays mapped.
        Files.deleteIfExists(copy);
      }
      return null;
    } catch (IOException | UnsatisfiedLinkError error) {
      return new IOException("the native library of Curvine cannot be loaded (its copy goes to java.io.tmpdir, "
          + System.getProperty("java.io.tmpdir") + ", which must allow programs): " + error.getMessage(), error);
    }
  }
}
