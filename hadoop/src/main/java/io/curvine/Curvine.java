package io.curvine;

import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.DelegateToFileSystem;
import org.apache.hadoop.fs.MultipartUploaderBuilder;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.XAttrSetFlag;
import org.apache.hadoop.fs.permission.AclEntry;
import org.apache.hadoop.fs.permission.AclStatus;

/** The same file system for {@code FileContext}; what Hadoop's class does not hand on, this one does. */
public class Curvine extends DelegateToFileSystem {
  /** As {@code AbstractFileSystem} makes it. */
  public Curvine(URI uri, Configuration configuration) throws IOException, URISyntaxException {
    super(uri, new CurvineFileSystem(), configuration, CurvineFileSystem.SCHEME, false);
  }

  @Override
  public int getUriDefaultPort() {
    return -1;
  }

  /** In one step: Hadoop's class would delete what is to be replaced, and then rename. */
  @Override
  public void renameInternal(Path from, Path to, boolean overwrite) throws IOException {
    checkPath(from);
    checkPath(to);
    // Its super class does not let this one call it.
    CurvineFileSystem files = (CurvineFileSystem) fsImpl;
    files.rename(from, to, overwrite ? Options.Rename.OVERWRITE : Options.Rename.NONE);
  }

  @Override
  public void setXAttr(Path path, String name, byte[] value, EnumSet<XAttrSetFlag> flags) throws IOException {
    fsImpl.setXAttr(path, name, value, flags);
  }

  @Override
  public byte[] getXAttr(Path path, String name) throws IOException {
    return fsImpl.getXAttr(path, name);
  }

  @Override
  public Map<String, byte[]> getXAttrs(Path path) throws IOException {
    return fsImpl.getXAttrs(path);
  }

  @Override
  public Map<String, byte[]> getXAttrs(Path path, List<String> names) throws IOException {
    return fsImpl.getXAttrs(path, names);
  }

  @Override
  public List<String> listXAttrs(Path path) throws IOException {
    return fsImpl.listXAttrs(path);
  }

  @Override
  public void removeXAttr(Path path, String name) throws IOException {
    fsImpl.removeXAttr(path, name);
  }

  @Override
  public AclStatus getAclStatus(Path path) throws IOException {
    return fsImpl.getAclStatus(path);
  }

  @Override
  public void setAcl(Path path, List<AclEntry> entries) throws IOException {
    fsImpl.setAcl(path, entries);
  }

  @Override
  public void modifyAclEntries(Path path, List<AclEntry> entries) throws IOException {
    fsImpl.modifyAclEntries(path, entries);
  }

  @Override
  public void removeAclEntries(Path path, List<AclEntry> entries) throws IOException {
    fsImpl.removeAclEntries(path, entries);
  }

  @Override
  public void removeDefaultAcl(Path path) throws IOException {
    fsImpl.removeDefaultAcl(path);
  }

  @Override
  public void removeAcl(Path path) throws IOException {
    fsImpl.removeAcl(path);
  }

  @Override
  public MultipartUploaderBuilder<?, ?> createMultipartUploader(Path base) throws IOException {
    return fsImpl.createMultipartUploader(base);
  }
}
