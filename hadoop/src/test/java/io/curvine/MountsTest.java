package io.curvine;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;

import java.net.URI;
import java.util.HashMap;
import java.util.Map;
import org.junit.Test;

/** Which mount a path of a store is in, and what it is called there. */
public class MountsTest {
  private static Mounts bucket(String... pathsAndUris) {
    Map<String, String> all = new HashMap<>();
    for (int i = 0; i < pathsAndUris.length; i += 2) {
      all.put(pathsAndUris[i], pathsAndUris[i + 1]);
    }
    return Mounts.of(URI.create("s3a://bucket/"), all);
  }

  private static String inside(Mounts mounts, String stored) {
    Mounts.Mount mount = mounts.of(stored);
    String inside = mount.inside(stored).toUri().getPath();
    assertEquals(stored, mount.outside(inside));
    return inside;
  }

  @Test
  public void aMountHasWhatIsAtItsUriAndBelow() {
    Mounts mounts = bucket("/lake", "s3://bucket/data/");
    assertEquals("/lake", inside(mounts, "/data"));
    assertEquals("/lake/a b/%41", inside(mounts, "/data/a b/%41"));
    assertNull(mounts.of("/"));
    assertNull(mounts.of("/database"));
    assertNull(mounts.of("/elsewhere/data"));
  }

  @Test
  public void aWholeBucketHasItsRoot() {
    for (String uri : new String[] {"s3://bucket", "s3://bucket/"}) {
      assertEquals("/b", inside(bucket("/b", uri), "/"));
      assertEquals("/b/x/y", inside(bucket("/b", uri), "/x/y"));
    }
  }

  @Test
  public void theInnermostMountCounts() {
    Mounts mounts = bucket("/b", "s3://bucket/", "/hot", "s3://bucket/data/hot");
    assertEquals("/hot/x", inside(mounts, "/data/hot/x"));
    assertEquals("/b/data/hotter", inside(mounts, "/data/hotter"));
  }

  @Test
  public void otherStoresDoNotCount() {
    Mounts mounts = bucket("/a", "s3://bucket-2/", "/b", "oss://bucket/", "/c", "file:///bucket/");
    assertNull(mounts.of("/x"));
  }
}
