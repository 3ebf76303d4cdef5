package io.curvine;

import java.io.IOException;

/** An error of the native library, with the class of the exception that users of Hadoop expect for it. */
final class CurvineException extends IOException {
  private static final long serialVersionUID = 1L;
  private final String exception;
  private final String kind;

  CurvineException(String exception, String kind, String message) {
    super(message);
    this.exception = exception;
    this.kind = kind;
  }

  /** Whether it is of a kind, by its name in the table of errors. */
  boolean is(String name) {
    return kind.equals(name);
  }

  /** The exception that users of Hadoop expect; an unchecked one is thrown. */
  IOException expected() {
    Exception expected = make();
    if (expected == null) {
      return new IOException(getMessage(), this);
    }
    if (expected.getCause() == null) {
      expected.initCause(this);
    }
    if (expected instanceof RuntimeException) {
      throw (RuntimeException) expected;
    }
    return (IOException) expected;
  }

  /** Null where the class is not there, or is not made from a message. */
  private Exception make() {
    try {
      Class<?> found = Class.forName(exception, true, CurvineException.class.getClassLoader());
      if (IOException.class.isAssignableFrom(found) || RuntimeException.class.isAssignableFrom(found)) {
        return (Exception) found.getConstructor(String.class).newInstance(getMessage());
      }
    } catch (ReflectiveOperationException absent) {
      return null;
    }
    return null;
  }
}
