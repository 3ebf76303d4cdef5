package org.apache.hadoop.fs;

import java.io.IOException;

/**
 * Hadoop's own interface, for Hadoop before 3.3.6, which has not got it: without it, a file system that implements it could not
 * be loaded there. Where Hadoop has it, the two are the same to Java, and it does not matter which of them is found first.
 */
public interface LeaseRecoverable {
  /** Begins to take a file away from its writer; whether it is closed already. */
  boolean recoverLease(Path file) throws IOException;

  /** Whether nobody writes a file any more. */
  boolean isFileClosed(Path file) throws IOException;
}
