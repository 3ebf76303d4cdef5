package io.curvine;

import java.io.EOFException;
import java.util.Comparator;
import java.util.List;
import java.util.Objects;
import java.util.stream.Collectors;
import org.apache.hadoop.fs.FSExceptionMessages;
import org.apache.hadoop.fs.FileRange;
import org.apache.hadoop.util.VersionInfo;

/** Ranges of a vectored read. */
final class Ranges {
  /** Hadoop 3.3 lets ranges overlap, and its contract says so; since 3.4 they must not. */
  private static final boolean MAY_OVERLAP = VersionInfo.getVersion().startsWith("3.3.");

  private Ranges() {
  }

  /** Throws what Hadoop's own streams throw of ranges that cannot be read, before any is. */
  static void validate(List<? extends FileRange> ranges) throws EOFException {
    Objects.requireNonNull(ranges, "no ranges");
    for (FileRange range : ranges) {
      Objects.requireNonNull(range, "a range is null");
      if (range.getLength() < 0) {
        throw new IllegalArgumentException("a range of " + range.getLength() + " bytes");
      }
      if (range.getOffset() < 0) {
        throw new EOFException(FSExceptionMessages.NEGATIVE_SEEK);
      }
    }
    if (MAY_OVERLAP) {
      return;
    }
    List<FileRange> sorted = ranges.stream()
        .sorted(Comparator.comparingLong(FileRange::getOffset))
        .collect(Collectors.toList());
    for (int i = 1; i < sorted.size(); i++) {
      FileRange before = sorted.get(i - 1);
      if (before.getOffset() + before.getLength() > sorted.get(i).getOffset()) {
        throw new IllegalArgumentException("ranges overlap: " + before + " and " + sorted.get(i));
      }
    }
  }
}
